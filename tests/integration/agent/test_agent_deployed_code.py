"""Code that an agent fetches, unpacks and builds: what runs, what is refused, and what a killed agent leaves."""

import asyncio
import hashlib
import io
import json
import os
import pwd
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.v1 import agent_pb2
from fleet_core.spec import AppSpec, spec_digest
from tests.integration.agent.fake_controller import DEADLINE_SECONDS, FakeController, target
from tests.integration.agent.running import RunningHost

_SLOT = ("shop", 1, 1)
_SCRIPT = "#!/bin/sh\nexec sleep 1000\n"


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def _app(*build: str, **changes: object) -> AppSpec:
    ready = {"method": "uptime", "min_uptime_seconds": 0}
    fields = {"name": "shop", "argv": ["./run"], "cwd": ".", "listen_mode": "none", "ready": ready, **changes}
    return AppSpec.model_validate({"build": {"command": build}, **fields})


def _given(controller: FakeController, *build: str, size: int = 0, files: dict[str, bytes] | None = None) -> str:
    """Assign an app whose code the controller has; returns the digest. `size`: of what comes with it, in bytes."""
    code = {"run": _SCRIPT.encode(), "weight": os.urandom(size), **(files or {})}
    content = _tar(code)
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    _assign(controller, _app(*build), digest)
    return digest


def _assign(controller: FakeController, spec: AppSpec, digest: str, **changes: object) -> None:
    controller.assign(target(spec, 1, artifact_digest=digest, **changes), specs=(spec,))  # type: ignore[arg-type]


def _left(host: RunningHost) -> set[str]:
    """What lies in the folder of code: digests, ends of names, and the lock."""
    return {path.suffix or path.name.partition("-")[0] for path in (host.state_dir / "artifacts").iterdir()}


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - of other processes and the disk, which nobody tells of
            await asyncio.sleep(0.02)


async def _gone(pid: int) -> None:
    await _until(lambda: not Path(f"/proc/{pid}").exists())


async def _folder_of(pid: int, host: RunningHost) -> Path:
    """Where a worker runs; one that is ready at once may be on its way there."""
    cwd = Path(f"/proc/{pid}/cwd")
    await _until(lambda: cwd.readlink().is_relative_to(host.state_dir / "artifacts"))
    return cwd.readlink()


async def _pid_in(path: Path) -> int:
    """What a build wrote there."""
    await _until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


async def test_code_is_fetched_built_and_run_in_its_own_folder(controller: FakeController, host: RunningHost) -> None:
    digest = _given(controller, "sh", "-c", "echo $PPID > built")
    worker = await controller.until_state(_SLOT, "READY")

    assert (await _folder_of(worker.pid, host) / "built").exists()
    assert _left(host) == {digest, ".ready", "lock"}
    said = [status.reason for _, status in controller.history if status.preparing]
    assert any("fetching" in reason for reason in said)
    assert any("building" in reason for reason in said)


async def test_a_stream_that_breaks_is_gone_on_with(controller: FakeController, host: RunningHost) -> None:
    controller.break_after = 50_000
    _given(controller, size=100_000)
    await controller.until_state(_SLOT, "READY")

    assert [request.offset for request in controller.fetches] == [0, 50_000]


async def test_bytes_of_another_digest_are_never_run(controller: FakeController, host: RunningHost) -> None:
    digest = "0" * 64
    controller.code[digest] = _tar({"run": _SCRIPT.encode()})
    _assign(controller, _app(), digest)
    worker = await controller.until_state(_SLOT, "FAILED")

    assert "not 000000000000" in worker.reason
    assert len(controller.fetches) == 3
    assert _left(host) == {"lock"}


async def test_what_the_controller_does_not_have_fails_the_worker_in_its_words(
    controller: FakeController, host: RunningHost
) -> None:
    _assign(controller, _app(), "1" * 64)
    worker = await controller.until_state(_SLOT, "FAILED")

    assert "deploy it again" in worker.reason


async def test_a_hostile_archive_fails_the_worker_and_leaves_nothing(
    controller: FakeController, host: RunningHost
) -> None:
    _given(controller, files={"../../out": b"x"})
    worker = await controller.until_state(_SLOT, "FAILED")

    assert "leads out of the archive" in worker.reason
    assert _left(host) == {"lock"}
    assert not list(host.state_dir.glob("**/out"))


async def test_a_build_that_fails_says_what_it_printed_last(controller: FakeController, host: RunningHost) -> None:
    _given(controller, "sh", "-c", "echo first; echo 'no compiler' >&2; exit 3")
    worker = await controller.until_state(_SLOT, "FAILED")

    assert worker.reason.endswith("exit code 3")
    assert list(worker.last_lines) == ["first", "no compiler"]
    assert _left(host) == {"lock"}


async def test_a_build_that_takes_too_long_is_killed_with_all_it_started(
    controller: FakeController, host: RunningHost, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    command = ["sh", "-c", f"setsid sh -c 'echo $$ > {note}; exec sleep 1000' & sleep 1000"]
    content = _tar({"run": _SCRIPT.encode()})
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    _assign(controller, _app(build={"command": command, "timeout_seconds": 1}), digest)
    pid = await _pid_in(note)
    worker = await controller.until_state(_SLOT, "FAILED")

    assert "took longer than 1 s" in worker.reason
    await _gone(pid)


async def test_a_build_that_nobody_waits_for_any_more_is_ended(
    controller: FakeController, host: RunningHost, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    _given(controller, "sh", "-c", f"echo $$ > {note}; exec sleep 1000")
    pid = await _pid_in(note)
    controller.assign(allow_empty=True)

    await _gone(pid)
    await _until(lambda: _left(host) == {"lock"})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_agent_that_ends_in_the_middle_of_a_build_leaves_nothing_and_the_next_one_builds_anew(
    controller: FakeController, host: RunningHost, tmp_path: Path, number: signal.Signals
) -> None:
    """Nothing half done is run."""
    note, go = tmp_path / "pid", tmp_path / "go"
    digest = _given(
        controller, "sh", "-c", f"touch half; echo $$ > {note}; test -e {go} || exec sleep 1000; touch whole"
    )
    pid = await _pid_in(note)
    await host.end_agent(number)
    await _gone(pid)
    go.touch()
    await host.start_agent()
    worker = await controller.until_state(_SLOT, "READY")

    assert (await _folder_of(worker.pid, host) / "whole").exists()
    assert digest in _left(host)
    assert len(controller.fetches) == 2
    assert len(list((host.state_dir / "artifacts").iterdir())) == 3


async def test_a_new_agent_goes_on_with_code_that_is_there_and_touches_no_worker(
    controller: FakeController, host: RunningHost
) -> None:
    """Guards invariant 3."""
    _given(controller)
    before = await controller.until_state(_SLOT, "READY")
    await host.end_agent(signal.SIGKILL)
    await host.start_agent()
    await controller.until_session()

    assert controller.workers[_SLOT].pid == before.pid
    assert len(controller.fetches) == 1


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm on PATH")
async def test_without_a_word_the_code_says_how_it_is_built(controller: FakeController, host: RunningHost) -> None:
    package = {"name": "shop", "version": "1.0.0", "scripts": {"prepare": "touch prepared"}}
    lock = {**package, "lockfileVersion": 3, "requires": True, "packages": {"": package}}
    files = {
        "package.json": json.dumps(package).encode(),
        "package-lock.json": json.dumps(lock).encode(),
        "requirements.txt": b"# nothing\n",
        "run": b"#!/bin/sh\nexec python -c 'import sys, time; print(sys.prefix, flush=True); time.sleep(1000)'\n",
    }
    content = _tar(files)
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    _assign(controller, _app(), digest)
    async with asyncio.timeout(60):
        while controller.state(_SLOT) != "WORKER_STATE_READY":  # a build may take longer than most things here
            assert controller.state(_SLOT) != "WORKER_STATE_FAILED", controller.workers[_SLOT]
            await asyncio.sleep(0.05)
    folder = await _folder_of(controller.workers[_SLOT].pid, host)

    log = host.log_dir / "shop" / "1.out.log"
    await _until(lambda: log.exists() and log.read_text())
    assert log.read_text().strip() == str(folder.parent / "venv")
    said = [status.reason for _, status in controller.history if status.preparing]
    assert any("npm ci --omit=dev" in reason for reason in said)
    assert any("pip install" in reason for reason in said)


def _prepare(controller: FakeController, spec: AppSpec, digest: str, attempt: int = 1) -> None:
    """Ask for code that no target needs yet."""
    message = spec.to_proto()
    wanted = agent_pb2.Preparation(
        app=spec.name, artifact_digest=digest, spec_digest=spec_digest(message), attempt=attempt
    )
    controller.assign(specs=(spec,), preparations=(wanted,), allow_empty=True)


def _prepared(controller: FakeController) -> agent_pb2.PreparationStatus | None:
    return next(iter(controller.preparations), None)


async def _until_prepared(controller: FakeController, state: str) -> agent_pb2.PreparationStatus:
    wanted = agent_pb2.PreparationState.Value(f"PREPARATION_STATE_{state}")
    await controller.until(lambda: (found := _prepared(controller)) is not None and found.state == wanted)
    found = _prepared(controller)
    assert found is not None
    return found


async def test_code_is_made_ready_before_any_target_names_it(controller: FakeController, host: RunningHost) -> None:
    content = _tar({"run": _SCRIPT.encode(), "weight": os.urandom(100_000)})
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    controller.break_after = 50_000
    spec = _app("sh", "-c", "touch built")
    _prepare(controller, spec, digest)
    await _until_prepared(controller, "READY")

    assert controller.hellos[-1].prepares_code
    assert controller.workers == {}
    said = [status for _, report in controller.reports for status in report.preparations]
    assert {status.state for status in said} >= {
        agent_pb2.PREPARATION_STATE_FETCHING,
        agent_pb2.PREPARATION_STATE_UNPACKING,
        agent_pb2.PREPARATION_STATE_BUILDING,
    }
    assert (50_000, len(content)) in {(status.received_bytes, status.size_bytes) for status in said}

    _assign(controller, spec, digest)
    worker = await controller.until_state(_SLOT, "READY")
    assert (await _folder_of(worker.pid, host) / "built").exists()
    assert [request.offset for request in controller.fetches] == [0, 50_000]
    assert not any(status.preparing for _, status in controller.history)


async def test_code_that_cannot_be_made_ready_says_why_and_is_tried_again_under_another_attempt(
    controller: FakeController, host: RunningHost, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    content = _tar({"run": _SCRIPT.encode()})
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    spec = _app("sh", "-c", f"test -e {go} || {{ echo no compiler; exit 3; }}")
    _prepare(controller, spec, digest)
    failed = await _until_prepared(controller, "FAILED")

    assert failed.reason.endswith("exit code 3")
    assert list(failed.last_lines) == ["no compiler"]
    await _until(lambda: _left(host) == {"lock"})

    go.touch()
    _prepare(controller, spec, digest, attempt=2)
    await _until_prepared(controller, "READY")


async def test_code_nobody_asks_to_prepare_any_more_is_given_up_and_a_new_agent_goes_on_with_what_is_asked_for(
    controller: FakeController, host: RunningHost, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    content = _tar({"run": _SCRIPT.encode()})
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    _prepare(controller, _app("sh", "-c", f"echo $$ > {note}; exec sleep 1000"), digest)
    first = await _pid_in(note)
    note.unlink()
    await host.end_agent(signal.SIGKILL)
    await _gone(first)
    await host.start_agent()
    second = await _pid_in(note)
    await _until_prepared(controller, "BUILDING")
    controller.assign(allow_empty=True)

    await _gone(second)
    await _until(lambda: _left(host) == {"lock"})
    await controller.until(lambda: not controller.preparations)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can build as somebody else")
async def test_code_is_built_by_the_user_its_workers_run_as_and_belongs_to_it(
    controller: FakeController, host: RunningHost, tmp_path: Path
) -> None:
    """An unprivileged build can read and write its own folder, and nothing of the host's that root alone may."""
    nobody = pwd.getpwnam("nobody")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o711)  # pytest closes them to all others
    secret = tmp_path / "secret"
    secret.write_text("of root's")
    secret.chmod(0o600)
    steps = f"id -u > who; id -G > groups; cat {secret} && exit 7; touch ../../beside && exit 8; umask > mask; exit 0"
    content = _tar({"run": _SCRIPT.encode()})
    digest = hashlib.sha256(content).hexdigest()
    controller.code[digest] = content
    spec = _app(build={"command": ["sh", "-c", steps]}, identity={"user": "nobody"})
    _prepare(controller, spec, digest)
    await _until_prepared(controller, "READY")
    (code,) = (host.state_dir / "artifacts").glob("*/code")

    assert (code / "who").read_text().split() == [str(nobody.pw_uid)]
    assert "0" not in (code / "groups").read_text().split()
    assert {path.stat().st_uid for path in (code, code / "run", code / "who")} == {nobody.pw_uid}
    assert (code / "who").stat().st_mode & 0o022 == 0
