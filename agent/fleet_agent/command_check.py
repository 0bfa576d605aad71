"""A command that tells whether a worker is well, run as the worker would run it: its user, its directory, its environment."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from fleet_agent.accounts import find_account, find_group
from fleet_agent.readiness import Finding
from fleet_agent.supervisor.processes import describe_exit
from fleet_agent.supervisor.protocol import Launch

_NOT_PASSED_ON = "FLEET_GENERATION"
"""With all of a worker's FLEET_ variables a process would be taken for a part of it, and stopped with it."""


async def command_finding(command: Sequence[str], launch: Launch, timeout: float) -> Finding:
    """Exit status 0 is good. What it prints goes nowhere. One that takes longer is killed, with what it started."""
    name = os.path.basename(command[0])  # noqa: PTH119 - a word for a message
    try:
        process = _start(command, launch)
    except OSError as error:
        return Finding(good=False, seen=f"{name} cannot be run: {error.strerror}")
    except LookupError as error:
        return Finding(good=False, seen=f"{name} cannot be run: {error.args[0]}")
    try:
        async with asyncio.timeout(timeout):
            await _end(process.pid)
    except TimeoutError:
        return Finding(good=False, seen=f"{name} did not end within {timeout:g} s")
    finally:
        # Its leader is not reaped yet, so the group is nobody else's.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode < 0:
        return Finding(good=False, seen=f"{name} was {describe_exit(os.CLD_KILLED, -process.returncode).reason}")
    return Finding(process.returncode == 0, f"{name} exited with {process.returncode}")


def _start(command: Sequence[str], launch: Launch) -> subprocess.Popen[bytes]:
    """Raises OSError, and LookupError where user or group is not known on this host."""
    identity: dict[str, Any] = {}
    if launch.user:
        account = find_account(launch.user)
        if account is None:
            raise LookupError(f"user {launch.user} is not known on this host")
        identity = {"user": account.uid, "group": account.gid, "extra_groups": account.groups()}
    if launch.group:
        identity["group"] = find_group(launch.group)
        if identity["group"] is None:
            raise LookupError(f"group {launch.group} is not known on this host")
    return subprocess.Popen(
        list(command),
        cwd=launch.cwd,
        env={name: value for name, value in launch.env.items() if name != _NOT_PASSED_ON},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        umask=launch.umask,
        **identity,
    )


async def _end(pid: int) -> None:
    """Returns when this child of ours has ended; it stays to be reaped."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
