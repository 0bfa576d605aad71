"""What a waiting process does to become a worker: system calls in their order, as values.

All run in the process itself, before its program: what needs rights comes before they are given up. A step that fails is the last
one, but for `execve`: where the program is looked for along PATH, the next folder is tried, as execvpe(3) does.
"""

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleet_agent.supervisor.identity import UNCHANGED, Identity
from fleet_agent.supervisor.stub_program import FIRST_INHERITED

_DEFAULT_PATH = ("/bin", "/usr/bin")
_MOST_NAME_CHARACTERS = 200

Argument = int | bytes | list[bytes]


class Step(NamedTuple):
    """A system call, by a name that `stub` and `stub_program` know."""

    name: str
    arguments: tuple[Any, ...]
    failed: str
    """Said where it fails; `%s` is the reason."""


@dataclass(frozen=True)
class Order:
    """Everything a process must do to become a worker."""

    argv: list[str]
    cwd: str
    env: Mapping[str, str]
    out: str
    err: str
    """FIFOs for stdout and stderr."""
    umask: int
    nice: int
    limits: list[tuple[int, int, int]]
    """(resource, soft, hard) for setrlimit(2)."""
    identity: Identity
    cgroup: str
    """A cgroup's folder, which it joins; empty: it stays."""
    inherited: int
    """How many descriptors, from number 3 on, its program gets."""


def steps_of(order: Order) -> list[Step]:
    """The last is an execve."""
    steps = []
    # Read-write: the FIFO then always has a reader, and no death of the supervisor can raise SIGPIPE in the worker.
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, order.out, os.O_RDWR), (2, order.err, os.O_RDWR)):
        steps.append(Step("close", (number,), "start: %s"))
        steps.append(Step("open", (os.fsencode(path), mode), _about(path)))  # the lowest number is taken (open(2))
    steps.append(Step("receive", (order.inherited,), "start: %s"))
    if order.cgroup:
        said, path = f"cgroup {_escape(order.cgroup)} cannot be joined: %s", f"{order.cgroup}/cgroup.procs"
        descriptor = FIRST_INHERITED + order.inherited
        steps.append(Step("open", (os.fsencode(path), os.O_WRONLY), said))
        steps.append(Step("write", (descriptor, b"0"), said))
        steps.append(Step("close", (descriptor,), said))
    if order.nice:
        steps.append(Step("setpriority", (os.PRIO_PROCESS, 0, order.nice), f"nice {order.nice}: %s"))
    for number, soft, hard in order.limits:
        steps.append(Step("setrlimit", (number, soft, hard), f"resource limit {_limit(number, soft, hard)}: %s"))
    steps += _identity_steps(order.identity)
    steps.append(Step("umask", (order.umask,), "umask: %s"))
    steps.append(Step("chdir", (os.fsencode(order.cwd),), _about(order.cwd)))
    argv = _encoded(order.argv)
    env = _encoded([f"{name}={value}" for name, value in order.env.items()])
    said = f"exec {_escape(order.argv[0])}: %s"
    steps += [Step("execve", (os.fsencode(path), argv, env), said) for path in _candidates(order)]
    return steps


def _encoded(texts: list[str]) -> list[bytes]:
    """All at once: none of them holds a NUL (`requests`)."""
    return os.fsencode("\0".join(texts)).split(b"\0") if texts else []


def _limit(number: int, soft: int, hard: int) -> str:
    """As one writes it: NOFILE=1024:unlimited."""
    names = (name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number)
    values = ("unlimited" if value < 0 else str(value) for value in (soft, hard))
    return f"{next(names, str(number)).removeprefix('RLIMIT_')}={':'.join(values)}"


def _identity_steps(identity: Identity) -> list[Step]:
    """While it still may, it makes the log FIFOs the new user's: programs reopen /dev/stdout."""
    steps = []
    said = f"user {identity.uid}, group {identity.gid}: %s"
    if identity.uid != UNCHANGED:
        steps += [Step("fchown", (number, identity.uid), said) for number in (1, 2)]
    if identity.groups is not None:
        steps.append(Step("setgroups", (list(identity.groups),), said))
    if identity.gid != UNCHANGED:
        steps.append(Step("setgid", (identity.gid,), said))
    if identity.uid != UNCHANGED:
        steps.append(Step("setuid", (identity.uid,), said))
    return steps


def _candidates(order: Order) -> list[str]:
    """With the worker's own PATH, not the supervisor's."""
    program = order.argv[0]
    if "/" in program:
        return [program]
    folders = [folder for folder in order.env.get("PATH", "").split(":") if folder]
    return [f"{folder}/{program}" for folder in folders or _DEFAULT_PATH]


def _about(path: str) -> str:
    return f"start: %s: {_escape(path)}"


def _escape(text: str) -> str:
    return text[:_MOST_NAME_CHARACTERS].replace("%", "%%")
