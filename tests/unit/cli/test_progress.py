"""The live table of a rollout."""

import io

from rich.console import Console

from fleet.v1 import control_pb2
from fleetctl.progress import render_rollout


def drawn(rollout: control_pb2.Rollout, height: int = 24, trouble: str = "", width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(render_rollout(rollout, rollout.seconds, trouble, (width, height)))
    return [line.rstrip() for line in capture.get().splitlines()]


def rollout(hosts: int, done: int) -> control_pb2.Rollout:
    return control_pb2.Rollout(
        app="my-app",
        kind=control_pb2.ROLLOUT_KIND_RESTART,
        state=control_pb2.ROLLOUT_STATE_RUNNING,
        steps=hosts * 2,
        steps_done=done * 2,
        seconds=75,
        hosts=[
            control_pb2.HostProgress(
                host=f"host{n}", steps=2, steps_done=2 if n <= done else 0, doing="" if n <= done else "starting 1"
            )
            for n in range(1, hosts + 1)
        ],
    )


def test_each_host_has_a_line_and_a_bar() -> None:
    head, first, second = drawn(rollout(2, 1))
    assert head == "restart my-app  2/4  1m15s"
    assert first.split() == ["host1", "━" * 24, "2/2", "done"]
    assert second.split() == ["host2", "0/2", "starting", "1"]


def test_it_is_never_higher_than_the_terminal_and_keeps_the_busy_hosts() -> None:
    lines = drawn(rollout(100, 97), height=10)
    assert len(lines) <= 10
    assert [line.split()[0] for line in lines[1:4]] == ["host98", "host99", "host100"]
    assert lines[-1] == "  and 93 more hosts"


def test_what_it_waits_for_and_what_is_wrong_is_said() -> None:
    waiting = rollout(1, 0)
    waiting.message = "waits for balancer lb1"
    assert drawn(waiting, trouble="the controller went away")[-2:] == [
        "  waits for balancer lb1",
        "  the controller went away",
    ]
