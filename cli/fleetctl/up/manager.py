"""Keeps daemons running, as a service manager does: starts, adopts, restarts and stops them, and holds their fd stores."""

import asyncio
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from fleetctl.errors import ExitCode
from fleetctl.up import process
from fleetctl.up.errors import UpError
from fleetctl.up.fdstore import DescriptorStore
from fleetctl.up.logs import last_lines, open_log, rotate_if_large
from fleetctl.up.notify import NotifySocket
from fleetctl.up.process import Daemon
from fleetctl.up.services import Life, Phase, Service

_HOPELESS_ENDS = 3
"""A daemon that ends so often before it was ever ready will not become so."""
_TOLD_ENDS = 6
"""Quick ends in a row that get a line each; a daemon that ended more often has long had the longest delay."""
_LOG_CHECK_SECONDS = 10.0
_COMMAND_OUTPUT_BYTES = 2000
_KILL_SECONDS = 10.0
"""A killed process that is still there then hangs in the kernel."""


class _Managed:
    """A service with its present process and what it stored."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.life = Life()
        self.daemon: Daemon | None = None
        self.last_pid = 0
        """Also of a process that ended: its messages may still be under way."""
        self.store = DescriptorStore()
        self.status = ""
        self.last_end = ""
        self.restart: asyncio.TimerHandle | None = None


class Manager:
    """All methods run in the event loop's thread. `report` gets one line per event a user should know."""

    def __init__(
        self,
        services: Iterable[Service],
        notify_path: Path,
        fleet_id: str,
        environment: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self._managed = {service.name: _Managed(service) for service in services}
        self._notify_path = notify_path
        self._fleet_id = fleet_id
        self._environment = environment
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._descriptor_limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The fd stores are held here, so this process needs more than a daemon's usual share.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._commands: dict[int, Daemon] = {}
        """Commands under way, by pid."""
        self._socket: NotifySocket | None = None
        self._changed = asyncio.Event()
        self._log_check: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen for notifications, and become the parent of orphans. Raises OSError."""
        process.become_reaper()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap_orphans)
        self._socket = NotifySocket(self._notify_path)
        self._loop.add_reader(self._socket, self._drain_notifications)
        self._check_logs()

    def close(self) -> None:
        """Let go of everything; processes that still run go on."""
        if self._log_check is not None:
            self._log_check.cancel()
        for managed in self._managed.values():
            self._cancel_restart(managed)
            self._release(managed)
            managed.store.close()
        if self._socket is not None:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def adopt(self) -> list[str]:
        """Take over daemons an earlier `up` left running; returns their services' names. Strangers among them are killed: a
        second process of one service, and services there are no more."""
        adopted = []
        for name, daemons in process.find_daemons(self._fleet_id).items():
            managed = self._managed.get(name)
            for daemon in daemons:
                if managed is None or managed.daemon is not None:
                    daemon.signal(signal.SIGKILL)
                    daemon.close()
                    continue
                self._watch(managed, daemon)
                managed.life.adopted(self._loop.time())
                adopted.append(name)
        return adopted

    def start(self, name: str) -> None:
        """Start a service that does not run; when it cannot be started, that is tried again like after any other end."""
        managed = self._managed[name]
        if managed.daemon is None:
            self._cancel_restart(managed)
            self._launch(managed)

    def restart(self, name: str) -> None:
        """Ask a running daemon to end; it is then started again."""
        daemon = self._managed[name].daemon
        if daemon is not None:
            daemon.signal(signal.SIGTERM)

    def is_running(self, name: str) -> bool:
        return self._managed[name].daemon is not None

    def was_ever_ready(self, name: str) -> bool:
        return self._managed[name].life.ever_ready

    async def wait_ready(self, names: Iterable[str], timeout: float) -> None:
        """Until each said READY=1. Raises UpError that names the one that did not, with the end of its log."""
        waiting = [self._managed[name] for name in names]

        def settled() -> bool:
            return all(managed.life.phase is Phase.READY for managed in waiting) or any(map(_hopeless, waiting))

        await self._wait_until(settled, timeout)
        for managed in sorted(waiting, key=_hopeless, reverse=True):
            if managed.life.phase is not Phase.READY:
                raise self.failure(managed.service.name, f"was not ready within {timeout:.0f} s")

    def hopeless(self) -> str | None:
        """The name of a service that keeps ending and never was ready."""
        return next((name for name, managed in self._managed.items() if _hopeless(managed)), None)

    def failure(self, name: str, what: str) -> UpError:
        """`what` is said unless the daemon keeps ending, which tells more."""
        managed = self._managed[name]
        if managed.last_end and managed.life.phase is not Phase.READY:
            what = f"does not stay up: it {managed.last_end}"
        elif managed.status:
            what = f"{what} ({managed.status})"
        log = managed.service.log
        lines = "".join(f"\n  {line}" for line in last_lines(log))
        return UpError(f"{name} {what}; see {log}{':' if lines else ''}{lines}", ExitCode.FAILED)

    async def stop(self, names: Iterable[str], grace: float, hasten: asyncio.Event) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds or as soon as `hasten` is set. They are not started again."""
        stopping = [self._managed[name] for name in names]
        for managed in stopping:
            self._cancel_restart(managed)
            managed.life.stopping()
            if managed.daemon is not None:
                managed.daemon.signal(signal.SIGTERM)

        def down() -> bool:
            return all(managed.daemon is None for managed in stopping)

        wake = asyncio.ensure_future(self._wake_on(hasten))
        try:
            await self._wait_until(lambda: down() or hasten.is_set(), grace)
        finally:
            wake.cancel()
        for managed in stopping:
            if managed.daemon is not None:
                managed.daemon.signal(signal.SIGKILL)
        await self._wait_until(down, _KILL_SECONDS)

    async def run_command(self, argv: Sequence[str], timeout: float, hasten: asyncio.Event | None = None) -> str | None:
        """Run a command to its end; returns what went wrong, "" for nothing. None: it was killed, because it took longer than
        `timeout` seconds or `hasten` was set."""
        environment = {**self._environment, process.FLEET_MARK: self._fleet_id}
        with tempfile.TemporaryFile() as output:
            try:
                command = process.start(argv, environment, output.fileno(), self._descriptor_limit)
            except OSError as error:
                return f"{argv[0]}: {error.strerror}"
            self._commands[command.pid] = command
            ended = asyncio.Event()
            self._loop.add_reader(command, ended.set)
            try:
                await self._wait_for_first(ended, hasten, timeout)
                in_time = ended.is_set()
                if not in_time:
                    command.signal(signal.SIGKILL)
                    await self._wait_for_first(ended, None, _KILL_SECONDS)
                end = command.reap()
            finally:
                self._loop.remove_reader(command)
                del self._commands[command.pid]
                command.close()
            if not in_time:
                return None
            output.seek(max(0, output.seek(0, os.SEEK_END) - _COMMAND_OUTPUT_BYTES))
            lines = output.read().decode(errors="replace").strip().splitlines()
        return "" if command.exit_code == 0 else lines[-1] if lines else f"{argv[0]} {end}"

    async def _wait_for_first(self, first: asyncio.Event, second: asyncio.Event | None, timeout: float) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (first, second) if event is not None]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _reap_orphans(self) -> None:
        own = {managed.daemon.pid for managed in self._managed.values() if managed.daemon is not None}
        process.reap_orphans(own | self._commands.keys())

    async def _wake_on(self, event: asyncio.Event) -> None:
        await event.wait()
        self._changed.set()

    async def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        deadline = self._loop.time() + timeout
        while not condition():
            left = deadline - self._loop.time()
            if left <= 0:
                return False
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return condition()
        return True

    def _launch(self, managed: _Managed) -> bool:
        service = managed.service
        managed.life.started(self._loop.time())
        managed.status = ""
        managed.store.drop_broken()
        environment = {
            **self._environment,
            **process.mark(self._fleet_id, service.name),
            "NOTIFY_SOCKET": os.fspath(self._notify_path),
        }
        try:
            log = open_log(service.log)
            try:
                daemon = process.start(service.argv, environment, log, self._descriptor_limit, managed.store.items())
            finally:
                os.close(log)
        except OSError as error:
            self._start_again(managed, f"cannot be started: {error}")
            return False
        self._watch(managed, daemon)
        return True

    def _watch(self, managed: _Managed, daemon: Daemon) -> None:
        managed.daemon = daemon
        managed.last_pid = daemon.pid
        self._loop.add_reader(daemon, partial(self._on_end, managed))
        self._changed.set()

    def _on_end(self, managed: _Managed) -> None:
        if managed.daemon is None:
            return
        end = managed.daemon.reap()
        if end is None:
            return
        # What it stored just before its end is to be passed to its successor.
        self._drain_notifications()
        self._release(managed)
        self._start_again(managed, end)

    def _start_again(self, managed: _Managed, end: str) -> None:
        managed.last_end = end
        delay = managed.life.ended(self._loop.time())
        self._changed.set()
        if delay is None:
            return
        name = managed.service.name
        if delay == 0.0:
            if self._launch(managed) and managed.daemon is not None and managed.life.ever_ready:
                self._report(f"{name} {end}: started again (pid {managed.daemon.pid})")
            return
        if managed.life.ever_ready and managed.life.quick_ends <= _TOLD_ENDS:
            how = f"in {delay:g} s" if managed.life.quick_ends < _TOLD_ENDS else f"every {delay:g} s until it stays up"
            self._report(f"{name} {end}: starting it again {how}; see {managed.service.log}")
        managed.restart = self._loop.call_later(delay, self._launch, managed)

    def _release(self, managed: _Managed) -> None:
        if managed.daemon is not None:
            self._loop.remove_reader(managed.daemon)
            managed.daemon.close()
            managed.daemon = None

    def _cancel_restart(self, managed: _Managed) -> None:
        if managed.restart is not None:
            managed.restart.cancel()
            managed.restart = None

    def _drain_notifications(self) -> None:
        while self._socket is not None and (notification := self._socket.receive()) is not None:
            managed = self._sender(notification.pid)
            if managed is None:
                for descriptor in notification.descriptors:
                    os.close(descriptor)
                continue
            self._apply(managed, notification.fields, notification.descriptors)

    def _sender(self, pid: int) -> _Managed | None:
        by_pid = {managed.last_pid: managed for managed in self._managed.values() if managed.last_pid}
        return next((by_pid[ancestor] for ancestor in process.ancestors(pid) if ancestor in by_pid), None)

    def _apply(self, managed: _Managed, fields: Mapping[str, str], descriptors: tuple[int, ...]) -> None:
        name = fields.get("FDNAME", "")
        if fields.get("FDSTORE") == "1":
            managed.store.add(name, descriptors)
        else:
            for descriptor in descriptors:
                os.close(descriptor)
        if fields.get("FDSTOREREMOVE") == "1" and name:
            managed.store.remove(name)
        if "STATUS" in fields:
            managed.status = fields["STATUS"]
        if fields.get("READY") == "1":
            if managed.life.ever_ready and managed.life.quick_ends > 1 and managed.life.phase is Phase.STARTING:
                self._report(f"{managed.service.name} is up again (pid {managed.last_pid})")
            managed.life.ready()
        self._changed.set()

    def _check_logs(self) -> None:
        for managed in self._managed.values():
            try:
                rotate_if_large(managed.service.log)
            except OSError as error:
                self._report(f"{managed.service.log} cannot be kept small: {error.strerror}")
        self._reap_orphans()
        self._log_check = self._loop.call_later(_LOG_CHECK_SECONDS, self._check_logs)


def _hopeless(managed: _Managed) -> bool:
    return not managed.life.ever_ready and managed.life.quick_ends >= _HOPELESS_ENDS
