"""A service manager for the two daemons under test: it starts them again, holds their fd stores, and strikes them.

`fleetctl up` waits longer and longer for a daemon that keeps ending; here the schedule says how long, so that faults meet a host
that runs. Processes, notifications and fd stores are those of `fleetctl up`.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fleetctl.up import process
from fleetctl.up.fdstore import DescriptorStore
from fleetctl.up.notify import NotifySocket
from fleetctl.up.process import Daemon
from tests.faults.evidence import History

_DESCRIPTORS = 1024
_REAP_SECONDS = 0.02
_STOP_SECONDS = 10.0
_LONGEST_OUTAGE_SECONDS = 2.0
"""A supervisor that was away so long is spared: with the longest pause after a last strike, workers bear less than 5 s."""
_RESPITE_SECONDS = 1.0
"""What it is then given to empty the pipes."""


class _Service:
    def __init__(self, name: str, argv: Sequence[str], log: Path) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.daemon: Daemon | None = None
        self.last_pid = 0
        self.store = DescriptorStore()
        self.pause = 0.0
        """Before the next start."""
        self.relapse: float | None = None
        """How long after READY=1 of the next process it is killed."""
        self.timers: set[asyncio.TimerHandle] = set()
        self.was_ready = False
        """The present process said READY=1."""
        self.ready_since: float | None = None
        """None while it is frozen, starting or down."""
        self.away_since: float | None = None
        """Since when it had no respite."""


class Daemons:
    """All methods run in the event loop's thread; `close` ends the daemons and leaves the workers."""

    def __init__(self, programs: Mapping[str, Sequence[str]], folder: Path, history: History) -> None:
        self._services = {name: _Service(name, argv, folder / f"{name}.log") for name, argv in programs.items()}
        self._history = history
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._path = folder / "notify"
        process.become_reaper()
        self._socket = NotifySocket(self._path)
        self._loop.add_reader(self._socket, self._drain_notifications)
        self._reaping = self._loop.call_soon(self._reap_orphans)

    def start(self) -> None:
        for service in self._services.values():
            self._launch(service)

    def strike(self, name: str, signal_name: str, seconds: float) -> None:
        service = self._services[name]
        if service.daemon is None:
            return
        if name == "supervisor" and not self._may_go(service):
            self._history.add("spared", service=name, pid=service.daemon.pid)
            return
        number = signal.Signals[f"SIG{signal_name}"]
        self._history.add("signal", service=name, pid=service.daemon.pid, signal=signal_name)
        if number is signal.SIGSTOP:
            self._away(service)
            self._later(service, seconds, partial(self._thaw, service, service.daemon))
        else:
            service.pause = seconds
            if number is signal.SIGKILL:
                self._away(service)
        service.daemon.signal(number)

    def strike_once_ready(self, name: str, delay: float) -> None:
        """The next process that comes: SIGKILL so many seconds after it is ready."""
        self._services[name].relapse = delay

    def thaw_all(self) -> None:
        """The last fault is over."""
        for service in self._services.values():
            service.relapse = None
            if service.daemon is not None:
                self._thaw(service, service.daemon)

    async def close(self) -> None:
        self._stopping = True
        self.thaw_all()
        for service in self._services.values():
            for timer in service.timers:
                timer.cancel()
            if service.daemon is not None:
                self._history.add("signal", service=service.name, pid=service.daemon.pid, signal="TERM")
                service.daemon.signal(signal.SIGTERM)
        deadline = self._loop.time() + _STOP_SECONDS
        while any(service.daemon for service in self._services.values()):
            if self._loop.time() > deadline:
                for service in self._services.values():
                    if service.daemon is not None:
                        service.daemon.signal(signal.SIGKILL)
            await asyncio.sleep(0.01)
        self._reaping.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for service in self._services.values():
            service.store.close()

    def _launch(self, service: _Service) -> None:
        service.store.drop_broken()
        log = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            environment = {**os.environ, "NOTIFY_SOCKET": str(self._path)}
            daemon = process.start(service.argv, environment, log, _DESCRIPTORS, service.store.items())
        finally:
            os.close(log)
        service.daemon, service.last_pid, service.was_ready = daemon, daemon.pid, False
        self._history.add("started", service=service.name, pid=daemon.pid, stored=len(service.store))
        self._loop.add_reader(daemon, self._on_end, service)

    def _on_end(self, service: _Service) -> None:
        daemon = service.daemon
        how = daemon.reap() if daemon is not None else None
        if daemon is None or how is None:
            return
        self._drain_notifications()  # what it stored just before its end is for the next one
        self._loop.remove_reader(daemon)
        daemon.close()
        service.daemon = None
        self._away(service)
        self._history.add("ended", service=service.name, pid=daemon.pid, how=how)
        pause, service.pause = service.pause, 0.0
        if not self._stopping:
            self._later(service, pause, partial(self._launch, service))

    def _away(self, service: _Service) -> None:
        now = self._loop.time()
        if service.ready_since is not None and now - service.ready_since >= _RESPITE_SECONDS:
            service.away_since = None
        service.away_since = now if service.away_since is None else service.away_since
        service.ready_since = None

    def _may_go(self, service: _Service) -> bool:
        """Short spells of readiness in between are no respite."""
        now = self._loop.time()
        rested = service.ready_since is not None and now - service.ready_since >= _RESPITE_SECONDS
        return rested or service.away_since is None or now - service.away_since < _LONGEST_OUTAGE_SECONDS

    def _back(self, service: _Service) -> None:
        if service.ready_since is None:
            service.ready_since = self._loop.time()

    def _thaw(self, service: _Service, daemon: Daemon) -> None:
        if service.daemon is daemon:
            self._history.add("signal", service=service.name, pid=daemon.pid, signal="CONT")
            daemon.signal(signal.SIGCONT)
            if service.was_ready:
                self._back(service)

    def _later(self, service: _Service, seconds: float, what: "partial[None]") -> None:
        timer: asyncio.TimerHandle

        def run() -> None:
            service.timers.discard(timer)
            what()

        timer = self._loop.call_later(seconds, run)
        service.timers.add(timer)

    def _drain_notifications(self) -> None:
        while (notification := self._socket.receive()) is not None:
            service = next((one for one in self._services.values() if one.last_pid == notification.pid), None)
            fields, descriptors = notification.fields, notification.descriptors
            if service is not None and fields.get("FDSTORE") == "1":
                service.store.add(fields.get("FDNAME", ""), descriptors)
            else:
                for descriptor in descriptors:
                    os.close(descriptor)
            if service is not None and fields.get("FDSTOREREMOVE") == "1":
                service.store.remove(fields.get("FDNAME", ""))
            if service is not None and fields.get("READY") == "1":
                self._history.add("ready", service=service.name, pid=notification.pid)
                service.was_ready = True
                self._back(service)
                if service.relapse is not None:
                    self._later(service, service.relapse, partial(self.strike, service.name, "KILL", 0.0))
                    service.relapse = None

    def _reap_orphans(self) -> None:
        process.reap_orphans({service.daemon.pid for service in self._services.values() if service.daemon is not None})
        self._reaping = self._loop.call_later(_REAP_SECONDS, self._reap_orphans)
