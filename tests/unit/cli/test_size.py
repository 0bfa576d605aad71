"""SIZE."""

import pytest

from fleet.v1 import control_pb2
from fleetctl.size import Size


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("8", control_pb2.SizeChange(absolute=8)),
        ("0", control_pb2.SizeChange(absolute=0)),
        ("+2", control_pb2.SizeChange(relative=2)),
        ("cpu", control_pb2.SizeChange(per_cpu=True)),
    ],
)
def test_the_three_ways_to_write_a_size(text: str, change: control_pb2.SizeChange) -> None:
    message = Size.parse(text).to_proto()
    assert message == change
    assert message.WhichOneof("change") == change.WhichOneof("change")


@pytest.mark.parametrize("text", ["", "abc", "-1", "1.5", "8 ", "++2", "+", "1000001", "9" * 5000, "٣", "CPU"])
def test_anything_else_is_refused_with_the_three_ways(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 8, \+2 \(two more\) or cpu"):
        Size.parse(text)


def test_a_negative_size_is_told_how_to_shrink() -> None:
    with pytest.raises(ValueError, match="to shrink, write the number of workers to keep"):
        Size.parse("-1")
