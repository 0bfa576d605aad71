"""As whom a worker runs, looked up before there is a process: names become numbers, and what cannot be becomes a reason."""

import grp
import os
import pwd
import resource
from typing import NamedTuple

from fleet_agent.supervisor.protocol import Launch

UNCHANGED = -1


class IdentityError(Exception):
    """The launch asks for what this host cannot give; the text says what."""


class Identity(NamedTuple):
    """Numbers for setgroups(2), setgid(2) and setuid(2); UNCHANGED ones are left alone."""

    uid: int = UNCHANGED
    gid: int = UNCHANGED
    groups: tuple[int, ...] | None = None


def identity_of(launch: Launch) -> Identity:
    """Raises IdentityError."""
    if not launch.user and not launch.group:
        return Identity()
    uid, name, gid = _user(launch.user) if launch.user else (UNCHANGED, "", UNCHANGED)
    if launch.group:
        gid = _group(launch.group)
    if gid == UNCHANGED:
        raise IdentityError(f"user {launch.user} is no account of this host: name a group as well")
    if os.geteuid() != 0:
        if uid not in {UNCHANGED, os.geteuid()} or gid != os.getegid():
            wanted = f"user {launch.user}" if launch.user else f"group {launch.group}"
            raise IdentityError(
                f"{wanted}: only a fleet-supervisor that runs as root can start workers as somebody else"
            )
        return Identity()
    groups = tuple(os.getgrouplist(name, gid)) if name else (gid,)
    return Identity(uid, gid, groups)


def limits_of(launch: Launch) -> list[tuple[int, int, int]]:
    """(resource, soft, hard) for setrlimit(2), -1 for unlimited, as Python has it too. Raises IdentityError."""
    limits = []
    for name, (soft, hard) in launch.resource_limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if not isinstance(number, int):
            raise IdentityError(f"resource limit {name} is not known on this host (setrlimit(2))")
        limits.append((number, soft, hard))
    return limits


def _user(name: str) -> tuple[int, str, int]:
    """(uid, name, primary gid); a number needs no account, and then has no group."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError) as error:
        if name.isdecimal() and isinstance(error, KeyError):
            return int(name), "", UNCHANGED
        raise IdentityError(f"no user is named {name} on this host") from error
    return entry.pw_uid, entry.pw_name, entry.pw_gid


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise IdentityError(f"no group is named {name} on this host") from error
