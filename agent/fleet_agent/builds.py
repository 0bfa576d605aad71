"""What is done between unpacking code and running it: which steps, as whom, for how long, and what they printed last."""

import asyncio
import sys
from collections import deque
from pathlib import Path

from fleet_agent import build_guard
from fleet_agent.accounts import Account
from fleet_agent.launch import HostContext, base_environment
from fleet_core.spec import AppSpec, BuildPolicy, Runtime

_LINES_KEPT = 20
_LINE_BYTES = 1000
_MARGIN_SECONDS = 30.0


class BuildFailedError(Exception):
    """A step did not end well; the text says how."""

    def __init__(self, text: str, last_lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.last_lines = last_lines


def build_steps(policy: BuildPolicy, folder: Path, venv: Path) -> list[tuple[str, ...]]:
    """Command lines, to be run in `folder` one after the other; they may fill `venv`."""
    if policy.skip:
        return []
    if policy.command:
        return [policy.command]
    steps: list[tuple[str, ...]] = []
    if any((folder / name).is_file() for name in ("package-lock.json", "npm-shrinkwrap.json")):
        steps.append(("npm", "ci", "--omit=dev", "--no-audit", "--no-fund"))
    if (folder / "requirements.txt").is_file():
        pip = (str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input")
        steps.append(("python3", "-m", "venv", str(venv)))
        steps.append((*pip, "-r", "requirements.txt"))
    return steps


def shown(argv: tuple[str, ...]) -> str:
    """A step for people: without the folder its program lies in."""
    return " ".join((Path(argv[0]).name, *argv[1:]))[:200]


async def build(
    argv: tuple[str, ...],
    folder: Path,
    spec: AppSpec,
    context: HostContext,
    account: Account | None,
    owner: tuple[int, int] | None,
    lock: int,
) -> None:
    """Run one step to its end, all of it under a guard that holds `lock`. Raises BuildFailedError, OSError.

    Cancelled, it returns when nothing of the step lives any more.
    """
    variables = account.variables() if account else None
    env = {**base_environment(context, variables), **context.variables, **spec.env}
    if spec.runtime is Runtime.NODE:
        env.setdefault("NODE_ENV", "production")
    groups = account.groups() if account else []
    guard_env = {**env, "FLEET_BUILD_GROUPS": " ".join(map(str, groups))}
    uid, gid = (str(owner[0]), str(owner[1])) if owner else ("", "")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", build_guard.__file__, str(spec.build.timeout_seconds), uid, gid, "--", *argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env=guard_env,
        start_new_session=True,
        pass_fds=(lock,),
        limit=64 * 1024,
    )
    lines: deque[str] = deque(maxlen=_LINES_KEPT)
    try:
        if process.stdout is not None:
            await _collect(process.stdout, lines)
        status = await process.wait()
    finally:
        # The guard ends the step when its standard input closes, and itself then.
        if process.stdin is not None:
            process.stdin.close()
        await asyncio.wait_for(process.wait(), _MARGIN_SECONDS)
    if status:
        raise BuildFailedError(_in_words(status, argv, spec.build), tuple(lines))


def _in_words(status: int, argv: tuple[str, ...], policy: BuildPolicy) -> str:
    what = f"build failed: {shown(argv)}"
    if status == build_guard.TIMED_OUT:
        return f"{what}: took longer than {policy.timeout_seconds:g} s"
    if status == build_guard.CANNOT_RUN:
        return f"{what}: cannot be run"
    return f"{what}: exit code {status}" if 0 < status < 128 else f"{what}: signal {abs(status) % 128}"


async def _collect(stream: asyncio.StreamReader, lines: deque[str]) -> None:
    """The last lines, however long what comes is."""
    rest = b""
    while data := await stream.read(64 * 1024):
        *whole, rest = (rest + data).split(b"\n")
        lines.extend(_text(line) for line in whole)
        rest = rest[-_LINE_BYTES:]
    if rest:
        lines.append(_text(rest))


def _text(line: bytes) -> str:
    return line[:_LINE_BYTES].decode(errors="replace").rstrip("\r")
