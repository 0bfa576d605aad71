"""What installing and uninstalling consist of. Pure: a step is a value that can be printed, or carried out by `carry_out`."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A system user with a group of its own, without home and shell; one that is there is left as it is."""

    name: str
    comment: str


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path
    mode: int = 0o755
    owner: str = "root"
    """User, and its group of the same name."""


@dataclass(frozen=True, slots=True)
class File:
    path: Path
    content: bytes
    mode: int = 0o644
    group: str = "root"
    """The owner is root: a daemon reads its own configuration, and changes it never."""
    secret: bool = False
    """Not to be printed."""


@dataclass(frozen=True, slots=True)
class Run:
    argv: tuple[str, ...]
    may_fail: bool = False
    """What it takes away may not be there."""


@dataclass(frozen=True, slots=True)
class RemovePath:
    """A file, or a folder with all that is in it; nothing happens where there is none."""

    path: Path


@dataclass(frozen=True, slots=True)
class RemoveAccount:
    name: str


Step = Account | Folder | File | Run | RemovePath | RemoveAccount


def useradd(account: Account) -> tuple[str, ...]:
    """useradd(8)."""
    return (
        *("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"),
        *("--shell", "/usr/sbin/nologin", "--comment", account.comment, account.name),
    )


def described(steps: Iterable[Step]) -> str:
    """All steps as an administrator would type them, each file with its content."""
    return "\n".join(_described(step) for step in steps) + "\n"


def _described(step: Step) -> str:
    match step:
        case Account():
            return f"{shlex.join(useradd(step))}   # unless it is there"
        case Folder():
            return f"install -d -m {step.mode:04o} -o {step.owner} -g {step.owner} {shlex.quote(str(step.path))}"
        case File():
            text = "(a private key)\n" if step.secret else step.content.decode(errors="replace")
            lines = "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
            return f"write {step.path} (mode {step.mode:04o}, root:{step.group}):\n{lines}"
        case Run():
            return shlex.join(step.argv)
        case RemovePath():
            return f"rm -rf {shlex.quote(str(step.path))}"
        case RemoveAccount():
            return f"userdel {step.name}"
