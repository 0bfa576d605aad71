"""Doing what the steps say, on this machine, as root. Each may be repeated: what is right already stays as it is."""

import grp
import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from fleet_core.durable import write_durably
from fleet_core.install.steps import Account, File, Folder, RemoveAccount, RemovePath, Run, Step, useradd

_COMMAND_SECONDS = 600.0
"""A unit that stops workers waits for their requests and their grace."""


class InstallError(Exception):
    """One line: what could not be done and what to do."""


def carry_out(steps: Iterable[Step], say: Callable[[str], None]) -> None:
    """In order, up to the first that fails. Raises InstallError."""
    for step in steps:
        try:
            _carry_out(step, say)
        except OSError as error:
            raise InstallError(f"{error.filename or step}: {error.strerror or error}") from error


def _carry_out(step: Step, say: Callable[[str], None]) -> None:
    match step:
        case Account():
            if not _account_exists(step.name):
                say(f"user {step.name}")
                _run(useradd(step))
        case Folder():
            _make_folder(step)
        case File():
            if not _holds(step.path, step.content):
                say(f"{step.path}")
                write_durably(step.path, step.content, step.mode)
            os.chown(step.path, 0, grp.getgrnam(step.group).gr_gid)
            step.path.chmod(step.mode)
        case Run():
            say(shlex.join(step.argv))
            _run(step.argv, may_fail=step.may_fail)
        case RemovePath():
            _remove(step.path, say)
        case RemoveAccount():
            if _account_exists(step.name):
                say(f"userdel {step.name}")
                _run(("userdel", step.name))


def _make_folder(step: Folder) -> None:
    # umask would narrow the mode, and one that is there keeps its own: both are set.
    step.path.mkdir(parents=True, exist_ok=True)
    owner = pwd.getpwnam(step.owner)
    os.chown(step.path, owner.pw_uid, owner.pw_gid)
    step.path.chmod(step.mode)


def _remove(path: Path, say: Callable[[str], None]) -> None:
    if path.is_dir() and not path.is_symlink():
        say(f"removed {path}")
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        say(f"removed {path}")
        path.unlink()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _account_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _run(argv: tuple[str, ...], *, may_fail: bool = False) -> None:
    try:
        result = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise InstallError(f"{argv[0]} is not on PATH: run this as root, with /usr/sbin and /sbin on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{shlex.join(argv)} did not end within {_COMMAND_SECONDS:g} s") from error
    if result.returncode != 0 and not may_fail:
        words = " ".join((result.stderr or result.stdout).split()) or f"exit status {result.returncode}"
        raise InstallError(f"{shlex.join(argv)}: {words}")
