"""What is wrong with values from outside is said in words, with the name of the field."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, field

from fleet_core.checked import Checked, CheckError, RuleError


class _Inner(Checked, frozen=True):
    seconds: Annotated[float, Meta(ge=0, le=10)] = 1

    def __post_init__(self) -> None:
        if self.seconds == 7:
            raise RuleError("seven - at `$.once` - is never right", "seconds")


class _Outer(Checked, frozen=True):
    name: str
    size: Annotated[int, Meta(gt=0)] = 1
    folder: Path = Path("/")
    inner: _Inner = _Inner()
    by_number: dict[Annotated[int, Meta(ge=1)], dict[str, _Inner]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "both" and self.size == 2:
            raise RuleError("two of them are one too many")


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        ({}, "name", "must be set"),
        ({"name": 1}, "name", "must be text, got int"),
        ({"name": None}, "name", "must be text, got null"),
        ({"name": "a", "size": 0}, "size", "must be a whole number >= 1"),
        ({"name": "a", "size": "3"}, "size", "must be a whole number, got str"),
        ({"name": "a", "colour": 1}, "colour", "is not known"),
        ({"name": "a", "folder": 3}, "folder", "must be text, not 3"),
        ({"name": "a", "inner": {"seconds": float("nan")}}, "inner.seconds", "must be a number >= 0.0"),
        ({"name": "a", "inner": {"seconds": float("inf")}}, "inner.seconds", "must be a number <= 10.0"),
        ({"name": "a", "inner": {"seconds": 7}}, "inner.seconds", "seven - at `$.once` - is never right"),
        ({"name": "a", "inner": {"second": 1}}, "inner.second", "is not known"),
        ({"name": "a", "by_number": {0: {}}}, "by_number", "must be a whole number >= 1"),
        ({"name": "a", "by_number": {1: {"x": {"seconds": -1}}}}, "by_number.seconds", "must be a number >= 0.0"),
        ({"name": "both", "size": 2}, "", "two of them are one too many"),
    ],
)
def test_the_first_fault_is_named_with_its_place(fields: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(CheckError) as caught:
        _Outer.model_validate(fields)

    assert (".".join(caught.value.place), caught.value.message) == (place, message)
    assert str(caught.value) == (f"{place}: {message}" if place else message)


def test_what_is_right_comes_back_as_it_was_written() -> None:
    fields = {
        "name": "a",
        "size": 2,
        "folder": "/srv",
        "inner": {"seconds": 3.5},
        "by_number": {1: {"x": {"seconds": 2.0}}},
    }

    made = _Outer.model_validate(fields)

    assert made.folder == Path("/srv")
    assert made.by_number == {1: {"x": _Inner(2.0)}}
    assert made.plain() == fields
