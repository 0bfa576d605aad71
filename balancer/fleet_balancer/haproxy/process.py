"""HAProxy processes: started so that they outlive us, found again by their command line, signalled through verified pidfds.

Process N reads `haproxy-N.cfg` in the runtime folder, and nothing else has that path on its command line. All that is worth
knowing of it is on disk before it starts, so there is no moment at which a killed fleet-balancer leaves an unknown one.
"""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

from fleet_balancer.driver import DriverError
from fleet_balancer.haproxy.binary import Binary


class HaproxyProcess:
    """One HAProxy, ours or adopted, held by a pidfd. The owner calls `close`."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    @property
    def alive(self) -> bool:
        """False once it ended, also while its parent has not reaped it."""
        return not select.select([self.pidfd], [], [], 0)[0]

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def ended(self) -> None:
        """Return when it ended, and reap it if it is our child."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        # A duplicate: several may wait at once, and a loop takes each descriptor once.
        watched = os.dup(self.pidfd)
        try:
            loop.add_reader(watched, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(watched)
        finally:
            os.close(watched)
        self.reap()

    async def ends_before(self, event: asyncio.Event) -> bool:
        """Return at the first of both: whether the event is not set yet."""
        ended = asyncio.create_task(self.ended())
        happened = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((ended, happened), return_when=asyncio.FIRST_COMPLETED)
            return not event.is_set()
        finally:
            ended.cancel()
            happened.cancel()
            await asyncio.gather(ended, happened, return_exceptions=True)

    def reap(self) -> None:
        """Collect the exit status if it is our child and ended; otherwise nothing happens."""
        if self.pidfd < 0:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    async def end(self, number: signal.Signals, grace: float) -> None:
        """Send a signal; after `grace` seconds SIGKILL. Returns when it is gone."""
        self.send(number)
        try:
            async with asyncio.timeout(grace):
                await self.ended()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ended()

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _arguments(binary: Path, configuration: Path) -> list[str]:
    # -db: stay in the foreground, one process; -q: nothing on stderr, not even what stops a start: check.words asks for that.
    return [str(binary), "-q", "-db", "-f", str(configuration)]


def first_alert(output: str) -> str:
    """The first line of HAProxy's output that says what is wrong."""
    lines = output.strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if "[ALERT]" in line), lines[-1]).strip()


def spawn(binary: Binary, configuration: Path, log: Path, descriptors: Iterable[int]) -> HaproxyProcess:
    """Start HAProxy in a session of its own, with `descriptors` inherited under the same numbers. Raises DriverError."""
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Onto itself, dup2 clears close-on-exec for the child alone (posix_spawn_file_actions_adddup2(3)).
    actions += [(os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in descriptors]
    try:
        pid = os.posix_spawn(
            binary.path,
            _arguments(binary.path, configuration),
            {
                name: value
                for name, value in os.environ.items()
                if name not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
            },
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except OSError as error:
        raise DriverError(f"{binary.path} cannot be started: {error.strerror}") from error
    # The child cannot be reaped by anybody else before this: its pid is still its own.
    return HaproxyProcess(pid, os.pidfd_open(pid))


def running(runtime_dir: Path) -> dict[int, HaproxyProcess]:
    """Every HAProxy that reads a configuration of ours from `runtime_dir`, by its number."""
    runtime_dir = runtime_dir.resolve()
    found: dict[int, HaproxyProcess] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or _number(entry, runtime_dir) is None:
            continue
        try:
            pidfd = os.pidfd_open(int(entry.name))
        except ProcessLookupError:
            continue
        process = HaproxyProcess(int(entry.name), pidfd)
        # Asked again with the pidfd in hand: now the answer is about the process the pidfd names.
        number = _number(entry, runtime_dir)
        if number is None or not process.alive:
            process.close()
        else:
            found[number] = process
    return found


def _number(entry: Path, runtime_dir: Path) -> int | None:
    """N, if the process runs as us with the arguments `-q -db -f RUNTIME_DIR/haproxy-N.cfg`."""
    try:
        if entry.stat().st_uid != os.geteuid():
            return None
        arguments = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return None
    if arguments[1:4] != ["-q", "-db", "-f"] or len(arguments) != 5:
        return None
    configuration = Path(arguments[4])
    number = configuration.stem.removeprefix("haproxy-")
    if configuration.parent != runtime_dir or configuration.suffix != ".cfg" or not number.isdigit():
        return None
    return int(number)
