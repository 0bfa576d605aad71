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


def test_that_it_goes_back_and_why_is_said_above_and_below_the_hosts() -> None:
    going_back = rollout(2, 1)
    going_back.state = control_pb2.ROLLOUT_STATE_ROLLING_BACK
    going_back.revision, going_back.previous_revision = 3, 2
    going_back.message = "worker my-app/host1/1 failed: exit code 3"
    head, _, _, why = drawn(going_back)
    assert head == "restart my-app  2/4  1m15s  going back to revision 2"
    assert why == "  worker my-app/host1/1 failed: exit code 3"


def test_what_to_type_fits_a_narrow_and_low_terminal() -> None:
    waiting = rollout(100, 97)
    waiting.awaits_promotion = True
    waiting.message = "the canaries are ready: `fleetctl rollout promote my-app` goes on, `… abort my-app` goes back"
    lines = drawn(waiting, height=10, width=40)
    assert len(lines) <= 10
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith("  ") for line in lines[-3:])
    assert " ".join(" ".join(lines).split()).endswith("`… abort my-app` goes back")
