"""Daemon processes: starting, recognising, watching and signalling them, always through a pidfd.

A daemon is recognised by its environment, which the kernel keeps as it was at exec (man 5 proc, /proc/PID/environ): FLEET_UP
names the fleet, FLEET_UP_SERVICE the service and FLEET_UP_PID the process itself, so that no process a daemon starts passes
for it. The mark comes into being with the process, so an `up` killed at any instant leaves no daemon that the next one does not
know; a record written afterwards would.
"""

import ctypes
import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path

FLEET_MARK = "FLEET_UP"
_SERVICE_MARK = "FLEET_UP_SERVICE"
_PID_MARK = "FLEET_UP_PID"
_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_PR_SET_CHILD_SUBREAPER = 36
_SHELL = "/bin/sh"
# Only the process itself knows its pid before exec; exec keeps it.
_LAUNCH = f'ulimit -S -n "$1"; shift; {_PID_MARK}=$$; export {_PID_MARK}; exec "$@"'
_LAUNCH_WITH_DESCRIPTORS = f"LISTEN_PID=$$; export LISTEN_PID; {_LAUNCH}"
_PROC = Path("/proc")
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)


class Daemon:
    """A running process held by its pidfd: the pid cannot come to mean another one while this object is open."""

    def __init__(self, pid: int, pidfd: int, *, adopted: bool) -> None:
        self.pid = pid
        self.adopted = adopted
        self.exit_code: int | None = None
        """Set by `reap` where the process exited by itself and its status can be known."""
        self._pidfd = pidfd

    def fileno(self) -> int:
        """Readable once the process ended (man 2 pidfd_open)."""
        return self._pidfd

    def signal(self, number: signal.Signals) -> None:
        """A process that is gone already is no error."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def reap(self) -> str | None:
        """How it ended, in words; None while it runs."""
        if self.adopted:
            try:
                signal.pidfd_send_signal(self._pidfd, 0)
            except ProcessLookupError:
                return "ended"
            return "ended" if _is_zombie(self.pid) else None
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        if result.si_code == os.CLD_EXITED:
            self.exit_code = result.si_status
            return f"ended with exit code {result.si_status}"
        try:
            return f"was killed by {signal.Signals(result.si_status).name}"
        except ValueError:
            return f"was killed by signal {result.si_status}"

    def close(self) -> None:
        os.close(self._pidfd)


def mark(fleet_id: str, service: str) -> dict[str, str]:
    """What the environment of a service's daemon holds beside what `start` adds."""
    return {FLEET_MARK: fleet_id, _SERVICE_MARK: service}


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: int,
    descriptor_limit: int,
    stored: Sequence[tuple[str, int]] = (),
) -> Daemon:
    """Start a daemon in a session of its own, so that Ctrl-C on the terminal does not reach it.

    `descriptor_limit` is its soft limit of open files; `stored` (name, descriptor) are passed by LISTEN_FDS. Raises OSError.
    """
    env = {name: value for name, value in environment.items() if not name.startswith("LISTEN_")}
    script = _LAUNCH
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    if stored:
        script = _LAUNCH_WITH_DESCRIPTORS
        env["LISTEN_FDS"] = str(len(stored))
        env["LISTEN_FDNAMES"] = ":".join(name for name, _ in stored)
    copies: list[int] = []
    try:
        for target, (_, descriptor) in enumerate(stored, _FIRST_DESCRIPTOR):
            # Above every target: no dup2 then overwrites the source of a later one.
            copy = fcntl(descriptor, F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR + len(stored))
            copies.append(copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        pid = os.posix_spawn(
            _SHELL,
            [_SHELL, "-c", script, "sh", str(descriptor_limit), *argv],
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        for copy in copies:
            os.close(copy)
    # Not reaped yet, so the pid is still its own.
    return Daemon(pid, os.pidfd_open(pid), adopted=False)


def find_daemons(fleet_id: str) -> dict[str, list[Daemon]]:
    """The running daemons of a fleet by service; each is the caller's to close."""
    found: dict[str, list[Daemon]] = {}
    for pid in _marked(fleet_id):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        # Read after the pidfd was opened: it is this process's environment.
        environment = _environment(pid)
        service = environment.get(_SERVICE_MARK, "")
        if environment.get(FLEET_MARK) == fleet_id and environment.get(_PID_MARK) == str(pid) and service:
            found.setdefault(service, []).append(Daemon(pid, pidfd, adopted=True))
        else:
            os.close(pidfd)
    return found


def find_marked(fleet_id: str) -> list[Daemon]:
    """Every process that carries the fleet's mark, daemons and what they started; each is the caller's to close."""
    found = []
    for pid in _marked(fleet_id):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        if _environment(pid).get(FLEET_MARK) == fleet_id:
            found.append(Daemon(pid, pidfd, adopted=True))
        else:
            os.close(pidfd)
    return found


def become_reaper() -> None:
    """From now on a process whose parent died is this one's child (PR_SET_CHILD_SUBREAPER, man 2 prctl), as it would be a service
    manager's: who adopts it learns its end at once, however slow the machine's init is. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of orphans")


def reap_orphans(own: Collection[int]) -> None:
    """Reap children that ended and are none of `own`, whose end somebody waits for."""
    for task in (_PROC / "self" / "task").iterdir():
        with suppress(OSError):  # the thread may end while its children are listed
            for child in map(int, (task / "children").read_text().split()):
                if child not in own:
                    os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG)


def ancestors(pid: int, limit: int = 8) -> Iterator[int]:
    """`pid` and its parents, up to `limit` of them."""
    for _ in range(limit):
        if pid <= 1:
            return
        yield pid
        pid = _parent(pid)


def _marked(fleet_id: str) -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _environment(int(entry.name)).get(FLEET_MARK) == fleet_id:
            yield int(entry.name)


def _environment(pid: int) -> dict[str, str]:
    """Empty for a zombie, a process of another user, and one that is gone."""
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third, the state, on; empty when the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] in "ZX"
