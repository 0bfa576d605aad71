"""Every kind of app of docs/apps.md: started by the command the page gives, used, replaced, and stopped."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.examples.documented import documented_apps
from tests.integration.examples.running import EXAMPLES, Example, alive, tree_of
from tests.integration.fleet.harness import Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed

_APPS = documented_apps()
_LIGHT_LOAD = ("--rate", "100", "--keepalive", "10", "--fresh", "10", "--idle", "2")
_TASK = re.compile(r"thumbnail of <(\d+)> made")
_GRACE_SECONDS = 10.0
_CELERY_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Server:
    """What an app that answers requests needs here, and what each of its workers prints."""

    needs: Path
    greeting: str
    """When it starts."""
    farewell: str = ""
    """When it was asked to leave and does; empty: it has no signal handler."""


_SERVERS = {
    "express": _Server(EXAMPLES / "express" / "node_modules", "listening on 3000"),
    "fastify": _Server(EXAMPLES / "fastify" / "node_modules", "Server listening at"),
    "nestjs": _Server(EXAMPLES / "nestjs" / "dist", "successfully started", "closed after SIGTERM"),
    "gunicorn": _Server(EXAMPLES / ".venv" / "bin" / "gunicorn", "Listening at", "Shutting down: Master"),
    "gunicorn-socket": _Server(EXAMPLES / ".venv" / "bin" / "gunicorn", "Listening at", "Shutting down: Master"),
    "uvicorn": _Server(EXAMPLES / ".venv" / "bin" / "uvicorn", "Uvicorn running on", "Finished server process"),
    "uvicorn-socket": _Server(EXAMPLES / ".venv" / "bin" / "uvicorn", "Uvicorn running on", "Finished server process"),
    "go": _Server(EXAMPLES / "go" / "hello", "listening on", "shutting down"),
}
_OTHERS = ("celery", "shell")


def test_the_page_describes_every_example_and_every_one_is_tested() -> None:
    folders = {f"examples/{entry.name}" for entry in EXAMPLES.iterdir() if entry.is_dir() and entry.name != ".venv"}

    assert {app.folder for app in _APPS.values()} == folders
    assert set(_APPS) == {*_SERVERS, *_OTHERS}


@pytest.mark.parametrize("folder", sorted(EXAMPLES.glob("*/package.json")), ids=lambda path: path.parent.name)
def test_a_lock_file_names_no_registry(folder: Path) -> None:
    assert '"resolved"' not in folder.with_name("package-lock.json").read_text()


@pytest.mark.parametrize("name", _SERVERS)
def test_a_server_is_replaced_under_load_without_a_failed_request(fleet: Fleet, name: str) -> None:
    """Guards invariants 1 and 7."""
    server = _SERVERS[name]
    with _started(fleet, name, server.needs) as example:
        workers = example.workers()
        assert all(worker["port"] for worker in workers)
        assert example.get("/healthz") == b"ok"
        assert len(example.printed(server.greeting)) == 2

        old = tree_of(workers)
        with load_on(example.address, fleet.folder, *_LIGHT_LOAD) as load:
            outcome = fleet.ask("soft-restart", name)
            load.wait_for_more(100)
            summary = load.stop()

        assert (outcome["state"], outcome["replaced"]) == ("done", 2)
        assert_none_failed(summary)
        assert not alive(old)
        new = {process.pid for process in tree_of(example.workers())}
        assert new & {int(pid) for pid in summary["pids"]}

        _assert_leaves(example, server.farewell, _GRACE_SECONDS)


def test_celery_does_every_task_once_while_its_workers_are_replaced(fleet: Fleet) -> None:
    tasks = 120
    with _started(fleet, "celery", EXAMPLES / ".venv" / "bin" / "celery") as example:
        workers = example.workers()
        assert not any(worker["port"] for worker in workers)
        old = tree_of(workers)
        send = f"import tasks\nfor number in range({tasks}): tasks.thumbnail.delay(f'<{{number}}>')"
        python = EXAMPLES / ".venv" / "bin" / "python"
        subprocess.run([python, "-c", send], cwd=example.folder, check=True, timeout=60)
        wait_for(lambda: len(example.printed("made")) == 2, "both workers at work")

        fleet.do("soft-restart", "celery")
        wait_for(lambda: sum(example.printed("made").values()) >= tasks, "every task done", 60)

        done = [int(made[1]) for _, line in example.lines() if (made := _TASK.search(line))]
        assert sorted(done) == list(range(tasks))
        assert not example.printed("exited with"), "a process of the pool was ended by a signal"
        assert not alive(old)
        _assert_leaves(example, "Warm shutdown", _CELERY_GRACE_SECONDS)


def test_a_shell_script_finishes_the_piece_in_hand(fleet: Fleet) -> None:
    with _started(fleet, "shell", EXAMPLES / "shell" / "worker.sh") as example:
        old = tree_of(example.workers())
        wait_for(lambda: len(example.printed("done")) == 2, "both workers at work")

        fleet.do("soft-restart", "shell")
        assert not alive(old)
        assert len(example.printed("left after")) == 2
        _assert_leaves(example, "left after", _GRACE_SECONDS)

        assert example.printed("begun") == example.printed("done")


@contextmanager
def _started(fleet: Fleet, name: str, needs: Path) -> Iterator[Example]:
    """The app, its two workers ready; removed at the end."""
    if not needs.exists():
        hint = " with go on PATH" if name == "go" else ""
        pytest.skip(f"{needs.relative_to(EXAMPLES.parent)} is missing: run `make examples`{hint}")
    example = Example.start(fleet, _APPS[name])
    try:
        assert sorted(worker["id"] for worker in example.workers()) == [f"{name}/host1/1", f"{name}/host2/1"]
        yield example
    finally:
        fleet.do("remove", name, "-y")


def _assert_leaves(example: Example, farewell: str, grace_seconds: float) -> None:
    """Stopped, every worker goes by itself, well before it would be killed, and nothing of its tree is left."""
    workers = example.workers()
    assert [worker["restarts"] for worker in workers] == [0, 0]
    tree = tree_of(workers)
    before = example.printed(farewell)

    seconds = example.stop()

    assert seconds < grace_seconds
    assert not alive(tree)
    if farewell:
        assert len(example.printed(farewell) - before) == 2
