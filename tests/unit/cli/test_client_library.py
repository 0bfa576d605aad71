"""The client library without a fleet: its names, its two faces, its values, its thread."""

import inspect
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import fleetctl
from fleet.v1 import control_pb2, types_pb2
from fleet_core.spec import AppSpec
from fleetctl import views
from fleetctl.apply_plan import Verdict
from fleetctl.client import public
from fleetctl.client.spec import SpecFields
from fleetctl.client.values import App, Change, RolloutStatus, WorkerState, from_view
from fleetctl.main import COMMANDS
from scripts.sync_client import WRITTEN, written

ROOT = Path(__file__).parents[3]


def run_python(code: str, **options: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_starts_without_the_library() -> None:
    heavy = "('grpc', 'google.protobuf', 'msgspec', 'fleetctl.client.public')"
    code = f"""
    import sys
    from fleetctl.main import run
    assert run(["--version"]) == 0
    print([name for name in {heavy} if name in sys.modules])
    """
    assert run_python(textwrap.dedent(code)).splitlines()[1] == "[]"


def test_the_library_loads_no_terminal() -> None:
    code = "import sys, fleetctl; fleetctl.Client; print([name for name in ('click', 'rich') if name in sys.modules])"
    assert run_python(code) == "[]\n"


@pytest.mark.parametrize("name", public.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fleetctl, name) is getattr(public, name)
    assert name in dir(fleetctl)


def test_what_is_no_name_is_none() -> None:
    for name in ("Nothing", "nothing", "_Client"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(fleetctl, name)


def test_the_blocking_client_is_written_from_the_other_one() -> None:
    assert WRITTEN.read_text() == written(), "run `make sync-client`"


@pytest.mark.parametrize(
    ("blocking", "original"),
    [
        (fleetctl.Client, fleetctl.AsyncClient),
        (fleetctl.Rollout, fleetctl.AsyncRollout),
        (fleetctl.Drain, fleetctl.AsyncDrain),
    ],
)
def test_both_clients_have_the_same_calls(blocking: type, original: type) -> None:
    def calls(face: type) -> dict[str, object]:
        members = inspect.getmembers(face, lambda member: inspect.isfunction(member) or isinstance(member, property))
        return {
            name: inspect.signature(member).parameters if inspect.isfunction(member) else "property"
            for name, member in members
            if not name.startswith("_") and name not in ("close", "aclose")
        }

    assert calls(blocking) == calls(original)


def test_an_app_can_be_described_by_every_field_of_its_spec() -> None:
    assert set(SpecFields.__annotations__) == set(AppSpec.__struct_fields__) - {"name", "argv"}


def test_what_a_newer_controller_says_is_unknown_and_no_error() -> None:
    assert views.worker_state(types_pb2.WorkerStatus(state=99)) == "unknown"  # type: ignore[arg-type]
    app = from_view({**views.app_view(control_pb2.App(name="a")), "state": "asleep", "new_field": 1}, App)
    assert (app.state, app.name) == ("unknown", "a")
    assert WorkerState("new-word") is WorkerState.UNKNOWN
    assert {verdict.value for verdict in Verdict} < {change.value for change in Change}


def test_errors_survive_being_sent_to_another_process() -> None:
    status = from_view(views.rollout_view(control_pb2.Rollout(id="r", app="a", message="why")), RolloutStatus)
    for error in (
        fleetctl.NotFound("no app is named a", "look", ["l"]),
        fleetctl.RolloutFailed("it failed", status, "look", ["l"]),
        fleetctl.RolloutTimeout("late", status),
        fleetctl.ApplyFailed("not as x says", (), ["l"]),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.hint, copy.details) == (type(error), str(error), error.hint, error.details)


def test_a_client_used_before_a_fork_says_so_instead_of_hanging() -> None:
    code = """
    import asyncio, os
    from fleetctl.client.portal import Portal

    async def closing(): pass
    portal = Portal(closing)
    portal.call(asyncio.sleep(0))
    child = os.fork()
    if not child:
        try:
            portal.call(asyncio.sleep(0))
        except RuntimeError as error:
            os._exit("before a fork" in str(error))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    portal.call(asyncio.sleep(0))
    portal.close()
    print(code)
    """
    assert run_python(textwrap.dedent(code)) == "1\n"


PAGE = (ROOT / "docs" / "client.md").read_text()

USER = """
from collections.abc import AsyncGenerator, Generator
from typing import assert_type

from fleetctl import (
    App, AppSpec, AsyncClient, AsyncRollout, Client, LogLine, Rollout, RolloutFailed, RolloutStatus, Worker, WorkerState,
)

def blocking(fleet: Client) -> None:
    assert_type(fleet.app("a"), App)
    assert_type(fleet.workers()[0].state, WorkerState)
    assert_type(fleet.spec("a"), AppSpec)
    rollout = fleet.set_size("a", "+1", host="h")
    assert_type(rollout, Rollout)
    assert_type(rollout.wait(timeout=3), RolloutStatus)
    assert_type(rollout.events(), Generator[RolloutStatus, None, None])
    assert_type(fleet.logs("a", follow=True), Generator[LogLine, None, None])
    try:
        fleet.deploy("a").wait()
    except RolloutFailed as failed:
        assert_type(failed.last_lines, tuple[str, ...])
    fleet.start("a", ["x"], bogus=1)  # type: ignore[call-arg]
    fleet.start("a", ["x"], env={"A": 1})  # type: ignore[dict-item]
    fleet.app("a").size = 3  # type: ignore[misc]

async def awaiting() -> None:
    async with AsyncClient() as fleet:
        assert_type(await fleet.workers(), tuple[Worker, ...])
        rollout = await fleet.set_size("a", 1)
        assert_type(rollout, AsyncRollout)
        assert_type(await rollout.wait(), RolloutStatus)
        assert_type(fleet.logs(), AsyncGenerator[LogLine, None])
"""


_OF_A_TERMINAL = {"up", "completion", "import", "cert", "version"}


def test_the_page_has_a_call_for_every_command() -> None:
    """A command that is new needs a call; those of `_OF_A_TERMINAL` are for people, or change this machine alone."""
    table = PAGE[PAGE.index("| command | call |") :].partition("\n\n")[0]
    named = {word.strip("` ") for line in table.splitlines()[2:] for word in line.split("|")[1].split(",")}
    groups = {word.split()[0] for word in named}
    assert {name for section in COMMANDS.values() for name in section} - _OF_A_TERMINAL <= groups
    calls = set(re.findall(r"`([a-z_]+)\(", table))
    faces = {name for name in dir(fleetctl.Client) if not name.startswith("_")} - {"close", "from_context"}
    assert faces <= calls


def test_a_type_checker_understands_the_page_and_a_users_program(tmp_path: Path) -> None:
    blocks = [block.partition("```")[0] for block in PAGE.split("```python\n")[1:]]
    page = "from fleetctl import Client\n\n" + "\n".join(
        f"def block_{number}(fleet: Client) -> None:\n{textwrap.indent(block, '    ')}"
        for number, block in enumerate(blocks)
    )
    (tmp_path / "page.py").write_text(page)
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "page.py"), str(tmp_path / "user.py")],
        cwd=ROOT,
        env={**os.environ, "MYPY_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout
