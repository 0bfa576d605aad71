"""One run: the host's real daemons, the model that plays the controller, and a schedule carried out on them."""

import asyncio
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.supervisor.processes import read_stat
from fleet_core.spec import AppSpec, ListenMode, Runtime
from tests.faults import writer
from tests.faults.daemons import Daemons
from tests.faults.evidence import History, Key, Process
from tests.faults.schedule import APPS, Action, Ambush, Crash, Relapse, Replace, Resize, Strike, schedule
from tests.faults.wishes import Wishes
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost

SETTLE_SECONDS = 30.0
"""How long after the last fault observed state may take to reach desired state."""
_START_SECONDS = 30.0
_TURN_SECONDS = 0.02
_LOG_BYTES = 64 * 1024
"""Rotated every second or so."""
_SIZE = 2
_READY = {"watched": {"method": "notify", "watchdog_seconds": 3}, "linked": {"method": "message"}}
_FORMAT = {"stamped": {"timestamps": True}, "watched": {"json_lines": True}}
_NODE_WRITER = Path(writer.__file__).with_suffix(".js")


class HostUnderFaults:
    """Everything of one run lies in `folder`; no process of it is left after `run`."""

    def __init__(self, folder: Path, seed: int, seconds: float, rate: float, *, timestamps: bool) -> None:
        self.journals = folder / "journals"
        self.history_path = folder / "history.jsonl"
        self._folder = folder
        self._seed, self._seconds, self._rate, self._timestamps = seed, seconds, rate, timestamps
        self._mark = f"FAULTS_RUN={uuid.uuid4().hex}"
        self._controller = FakeController(folder / "tls")
        self._wishes = Wishes(dict.fromkeys(APPS, _SIZE))
        self.journals.mkdir()
        self._history = History(self.history_path)
        self._specs = {app: self._spec(app) for app in APPS}
        self._assigned: list[Any] = []
        self._sent: tuple[int, list[Any]] = (0, [])

    @property
    def log_dir(self) -> Path:
        return self._folder / "log"

    async def run(self) -> None:
        """Faults, then the way back to what is wanted, then to nothing. What was not reached is in the history."""
        await self._controller.start()
        host = RunningHost(self._folder, self._controller.folder, self._controller.address)
        supervisor = [sys.executable, "-m", "fleet_agent.supervisor.main", "run"]
        supervisor += ["--runtime-dir", str(host.supervisor.runtime_dir), "--log-dir", str(host.log_dir)]
        agent = [sys.executable, "-m", "fleet_agent.main", "run", "--config", str(host.config)]
        daemons = Daemons({"supervisor": supervisor, "agent": agent}, self._folder, self._history)
        try:
            daemons.start()
            await self._reach("begun", self._difference, _START_SECONDS)
            await self._suffer(daemons)
            daemons.thaw_all()
            await self._reach("settled", self._difference, SETTLE_SECONDS)
            self._wishes.nothing()
            await self._reach("stopped", self._left, SETTLE_SECONDS)
        finally:
            await daemons.close()
            await self._controller.stop()
            self._kill_what_is_left()
            self._history.close()

    def _spec(self, app: str) -> AppSpec:
        node = app == "linked"
        name, value = self._mark.split("=")
        lines = self._rate * self._seconds * 2 * writer.LINE_BYTES
        return AppSpec.model_validate(
            {
                "name": app,
                "argv": ["node", str(_NODE_WRITER)] if node else [sys.executable, "-S", "-E", writer.__file__],
                "runtime": Runtime.NODE if node else Runtime.PROGRAM,
                "cwd": str(self._folder),
                "env": {name: value, "FAULTS_JOURNAL": str(self.journals), "FAULTS_RATE": str(self._rate)},
                "listen_mode": ListenMode.NONE,
                "ready": _READY.get(app, {"min_uptime_seconds": 0.2}),
                "stop": {"grace_seconds": 5},
                "restart": {
                    "backoff_initial_seconds": 0.05,
                    "backoff_max_seconds": 0.5,
                    "stable_seconds": 1,
                    "max_restarts": 100_000,
                },
                "log": {
                    "max_bytes": _LOG_BYTES,
                    "max_files": min(1000, 50 + int(lines / _LOG_BYTES)),
                    **({"timestamps": True} if self._timestamps else _FORMAT.get(app, {})),
                },
            }
        )

    async def _suffer(self, daemons: Daemons) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for action in schedule(self._seed, self._seconds):
            while (left := begin + action.at - loop.time()) > 0:
                self._control()
                await asyncio.sleep(min(left, _TURN_SECONDS))
            self._act(daemons, action)

    def _act(self, daemons: Daemons, action: Action) -> None:
        match action:
            case Strike():
                daemons.strike(action.service, action.signal, action.seconds)
            case Crash():
                self._crash(action.pick)
            case Ambush():
                self._crash(action.pick)
                time.sleep(action.delay)  # to the fraction of a millisecond
                daemons.strike("supervisor", "KILL", action.seconds)
            case Relapse():
                daemons.strike("supervisor", "KILL", action.seconds)
                daemons.strike_once_ready("supervisor", action.delay)
            case Resize():
                self._wishes.resize(action.app, action.size)
                self._control()
            case Replace():
                self._wishes.replace(action.app, action.pick)
                self._control()

    def _crash(self, pick: float) -> None:
        living = sorted(self._living())
        if not living:
            return
        key, process = living[int(pick * len(living))]
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            stat = read_stat(process.pid)
            if stat is None or stat.dead or stat.start_ticks != process.start_ticks:
                return
            self._history.add("worker killed", key=key, pid=process.pid, start_ticks=process.start_ticks)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)

    # The controller's part

    def _control(self) -> None:
        """One look at the reports, and an assignment where one is due: it changed, or the session is another."""
        self._wishes.observe(self._states())
        targets = [[list(key), phase] for key, phase in sorted(self._wishes.targets.items())]
        if targets != self._assigned:
            self._assigned = targets
            self._history.add("assigned", targets=targets)
        sessions = len(self._controller.complete_reports())
        if self._controller.in_session and sessions and self._sent != (sessions, targets):
            self._sent = (sessions, targets)
            self._controller.assign(*self._targets(), specs=tuple(self._specs.values()), allow_empty=True)

    def _targets(self) -> list[agent_pb2.Target]:
        return [
            target(self._specs[key.app], key.slot, key.generation, f"PHASE_{phase.upper()}")
            for key, phase in self._wishes.targets.items()
        ]

    def _states(self) -> dict[Key, str]:
        return {
            Key(*slot): types_pb2.WorkerState.Name(status.state).removeprefix("WORKER_STATE_")
            for slot, status in self._controller.workers.items()
        }

    # What is there

    async def _reach(self, event: str, difference: Callable[[], str], seconds: float) -> None:
        """Go on controlling until there is no difference, and tell the history how that went."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while True:
            self._control()
            still = difference()
            if not still or loop.time() - begin > seconds:
                break
            await asyncio.sleep(_TURN_SECONDS)
        living = [process for _, process in self._living()]
        self._history.add(event, seconds=loop.time() - begin, difference=still, living=living)

    def _difference(self) -> str:
        """Between what is wanted, what is reported, and what runs; "" for none."""
        wanted = self._wishes.settled
        if wanted is None or not self._controller.in_session:
            return "changes are under way"
        states = self._states()
        if states != dict.fromkeys(wanted, "READY"):
            return f"wanted {_names(wanted)}, reported { {str(key): state for key, state in sorted(states.items())} }"
        reported = sorted((Key(*slot), status.pid) for slot, status in self._controller.workers.items())
        running = sorted((key, process.pid) for key, process in self._living())
        return "" if reported == running else f"reported {reported}, running {running}"

    def _left(self) -> str:
        """Of what nobody wants any more."""
        left = [f"{key} {process.pid}" for key, process in self._living()]
        left += [f"{key} as {state}" for key, state in self._states().items()]
        return ", ".join(left)

    def _living(self) -> list[tuple[Key, Process]]:
        """The run's worker processes by their environment, whether or not anybody knows of them."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            pid = int(entry.name)
            before = read_stat(pid)
            try:
                pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if before is None or before.dead or self._mark not in pairs:
                continue
            env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            key = Key(env["FLEET_APP"], int(env["FLEET_WORKER_ID"]), int(env["FLEET_GENERATION"]))
            found.append((key, Process(pid, before.start_ticks)))
        return found

    def _kill_what_is_left(self) -> None:
        for _, process in self._living():
            try:
                pidfd = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            stat = read_stat(process.pid)
            if stat is not None and stat.start_ticks == process.start_ticks:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)

    def delete(self) -> None:
        shutil.rmtree(self._folder)


def _names(keys: set[Key]) -> str:
    return ", ".join(map(str, sorted(keys)))
