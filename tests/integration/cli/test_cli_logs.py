"""`logs`."""

import json

import pytest

from fleet.v1 import control_pb2
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl


def entry(text: bytes, slot: int = 1, stream: str = "stdout") -> control_pb2.LogEntry:
    return control_pb2.LogEntry(app="my-app", host="host1", slot=slot, stream=stream, text=text)


def test_each_line_begins_with_its_worker_and_stream(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["StreamLogs"] = [
        control_pb2.StreamLogsResponse(entries=[entry(b"hello"), entry(b"oh \xff no", 12, "stderr")])
    ]
    result = fleetctl("logs")
    assert result.out == "my-app/host1/1  | hello\nmy-app/host1/12 ! oh � no\n"
    assert result.err == ""
    assert control.of(control_pb2.StreamLogsRequest)[0].lines == 20


def test_json_is_one_object_a_line(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["StreamLogs"] = [control_pb2.StreamLogsResponse(entries=[entry(b"one"), entry(b"two")])]
    lines = [json.loads(line) for line in fleetctl("logs", "my-app", "-o", "json").out.splitlines()]
    assert [line["text"] for line in lines] == ["one", "two"]
    assert lines[0] == {
        "worker": "my-app/host1/1",
        "app": "my-app",
        "host": "host1",
        "slot": 1,
        "stream": "stdout",
        "text": "one",
    }


def test_hosts_that_could_not_be_asked_are_named_once_on_standard_error(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    response = control_pb2.StreamLogsResponse(entries=[entry(b"hello")], unreachable_hosts=["host3"])
    control.answers["StreamLogs"] = [response, response]
    result = fleetctl("logs")
    assert result.out == "my-app/host1/1 | hello\n" * 2
    assert result.err == "1 host could not be asked: host3; fleetctl host ls shows more\n"


def test_a_worker_is_asked_for_by_its_name(fleetctl: Fleetctl, control: FakeControl) -> None:
    fleetctl("logs", "--worker", "my-app/host1/3", "--lines", "7")
    (request,) = control.of(control_pb2.StreamLogsRequest)
    assert (request.app, request.host, request.slot, request.lines) == ("my-app", "host1", 3, 7)


def test_since_asks_for_every_line_of_that_time_unless_told_otherwise(fleetctl: Fleetctl, control: FakeControl) -> None:
    fleetctl("logs", "--since", "10m")
    fleetctl("logs", "--since", "2d", "--lines", "5")
    everything, few = control.of(control_pb2.StreamLogsRequest)
    assert (everything.since_seconds, everything.lines) == (600, 1_000_000)
    assert (few.since_seconds, few.lines) == (172_800, 5)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--worker", "my-app/host1"), "write APP/HOST/SLOT"),
        (("other", "--worker", "my-app/host1/3"), "is not one of other"),
        (("--host", "host2", "--worker", "my-app/host1/3"), "is not on host2"),
        (("--lines", "-1"), "--lines"),
        (("--since", "0"), "--since"),
        (("--since", "yesterday"), "--since"),
    ],
)
def test_bad_arguments_are_usage_errors(
    fleetctl: Fleetctl, control: FakeControl, arguments: tuple[str, ...], complaint: str
) -> None:
    result = fleetctl("logs", *arguments)
    assert result.code == 2
    assert complaint in result.err
    assert control.requests == []


def test_where_there_is_nothing_it_says_so_beside_the_output(fleetctl: Fleetctl) -> None:
    result = fleetctl("logs", "--worker", "my-app/host1/9")
    assert (result.code, result.out, result.err) == (0, "", "no lines\n")


def test_following_ends_at_the_timeout(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["StreamLogs"] = control.hold(control_pb2.StreamLogsResponse(entries=[entry(b"hello")]))
    result = fleetctl("logs", "-f", "--timeout", "1s")
    assert (result.code, result.out) == (0, "my-app/host1/1 | hello\n")


def test_lines_that_do_not_come_are_not_waited_for_for_ever(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["StreamLogs"] = control.hold()
    result = fleetctl("logs", "--timeout", "1s")
    assert result.code == 6
    assert "1s" in result.err
