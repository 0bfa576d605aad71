"""What this host should run, what its supervisor says it runs, and the plan that follows: the agent's state in one place.

Owned by one event loop. Every change goes through `_refresh`, which is synchronous: whoever sees `changed` set finds statuses
that agree with the assignment held. Records that arrive together are planned for once, in the same turn of the loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.accounts import find_account
from fleet_agent.artifacts import Artifacts
from fleet_agent.assignment import HeldAssignment, read_assignment, write_assignment
from fleet_agent.disks import Disks
from fleet_agent.env_files import EnvFileError, EnvFiles
from fleet_agent.last_lines import LogMarks, mark_logs, read_last_lines
from fleet_agent.launch import Extra, HostContext, Local
from fleet_agent.ports import PortTable, read_ports, write_ports
from fleet_agent.probes import boot_time
from fleet_agent.readiness import Rule
from fleet_agent.reconcile import Command, Run, Wanted, reconcile, status_of
from fleet_agent.replacements import Demand
from fleet_agent.sockets import ListenerTable
from fleet_agent.supervisor.protocol import Key, Worker
from fleet_core.config import PortRange
from fleet_core.spec import AppSpec

_LOG = logging.getLogger(__name__)
_LONGEST_WATCH_SECONDS = 60.0
_LOG_SECONDS = 0.05
"""From a process's end until what it printed last is in its log."""
_REPORT_SECONDS = 0.01
"""So long planning leaves the processor to the report of an end, here and on its way to the balancers: a small host may have all
of them."""
_UNASKED_ENDS = frozenset({"starting", "backoff", "failed"})
"""States of a worker without a process that was not stopped."""
_Content = TypeVar("_Content")


class Host:
    """Raises OSError and ValueError when a state file cannot be read."""

    def __init__(
        self,
        context: HostContext,
        state_dir: Path,
        log_dir: Path,
        ports: PortRange,
        listeners: ListenerTable,
        runtime_dir: Path | None = None,
    ) -> None:
        """`runtime_dir`: only looked at for whether its disk is full."""
        self.context = context
        self._log_dir = log_dir
        self._last_lines: dict[Key, list[str]] = {}
        self._log_marks: dict[Key, LogMarks] = {}
        self._unready: dict[Key, tuple[int, str]] = {}
        """The process that was found not to be ready any more, and what was seen."""
        self.changed = asyncio.Event()
        """Set when `statuses` or `held` changed; for the one session that reports them."""
        self.commands_waiting = asyncio.Event()
        """Set when `giving()` has something to say; for the one link to the supervisor."""
        self.supervisor_known = asyncio.Event()
        """Set once the supervisor's workers are known: before, nothing true could be reported."""
        self.on_refresh: Callable[[], None] = lambda: None
        """Called after each plan: workers and rules may have changed."""
        self.look_due = asyncio.Event()
        """Set when a worker's process came or went, something hinders one, or somebody looks at usage."""
        self.demanding = asyncio.Event()
        """Set while `demands` has something in it."""
        self.demands: Mapping[Key, Demand] = {}
        """Processes the controller is to be asked to replace."""
        self.statuses: Mapping[Key, types_pb2.WorkerStatus] = {}
        self.in_vain: list[str] = []
        """Which workers are replaced again and again, in words."""
        self.preparations: tuple[agent_pb2.PreparationStatus, ...] = ()
        """How far the code is that is to be made ready before a target needs it."""
        self._commands: list[Command] = []
        self.workers: dict[Key, Worker] = {}
        self._ended: dict[Key, int] = {}
        """Processes that ended, though the supervisor's record of the worker still names them."""
        self._listeners = listeners
        self._env_files = EnvFiles()
        self.artifacts = Artifacts(state_dir / "artifacts", context, self._refresh_soon)
        self._assignment_path = state_dir / "assignment.json"
        self._ports_path = state_dir / "ports.json"
        self._held = read_assignment(self._assignment_path)
        self._wanted: dict[Key, Wanted] = self._held.wanted()
        self._to_prepare = self._held.to_prepare()
        self._ports: PortTable = read_ports(self._ports_path, ports.first, ports.last)
        self._durable_ports = self._ports
        self._told: dict[Key, Command] = {}
        self._coming: set[Key] = set()
        """Without a record yet, and the supervisor is being told, or was told, to run them."""
        self._refused: dict[Key, str] = {}
        self._refresh_due = False
        self._rest_until = 0.0
        self.usage_watched_until = 0.0
        self.leaving = False
        """This host is about to stop its workers, or has: nothing is started."""
        self.leaving_changed = asyncio.Event()
        """Set when `leaving` changed; for the one session that tells the controller."""
        self.drained = asyncio.Event()
        """Set once the controller said, since this host is leaving, that no balancer sends its workers anything."""
        self.hindered = False
        """Something on this host, such as a missing env file, keeps a worker from being started."""
        folders = {"state_dir": state_dir, "log_dir": log_dir}
        self._disks = Disks(folders if runtime_dir is None else {**folders, "runtime_dir": runtime_dir})
        self._away_since: float | None = boot_time()
        # One thread, so that writes of one file never overlap, even when whoever waited for the first was cancelled.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state-writer")

    def close(self) -> None:
        """Returns when what is being written is written."""
        self._writer.shutdown()

    @property
    def held(self) -> HeldAssignment:
        return self._held

    async def hold(self, held: HeldAssignment) -> None:
        """Make `held` durable, then act on it. Raises OSError; what was held before then still stands."""
        if held == self._held:
            return
        await self._in_writer(write_assignment, self._assignment_path, held)
        replaced = (held.epoch, held.sequence) != (self._held.epoch, self._held.sequence)
        self._held = held
        if replaced:
            self._wanted = held.wanted()
            self._to_prepare = held.to_prepare()
            self._refused.clear()
            self._refresh()
            self.changed.set()

    def state_unwritable(self, error: OSError | None) -> None:
        """The state folder refused to be written; None: it took it."""
        self._disks.refused("state_dir", error)

    def troubles(self) -> list[str]:
        """What is wrong with this host, in words."""
        return [*self._disks.troubles(), *self.in_vain]

    async def keep_ports(self) -> None:
        """Make the ports given out durable; to be called before the commands that use them. Raises OSError."""
        ports = self._ports
        if ports != self._durable_ports:
            try:
                await self._in_writer(write_ports, self._ports_path, ports)
            except OSError as error:
                self.state_unwritable(error)
                raise
            self.state_unwritable(None)
            self._durable_ports = ports

    def take_all(self, workers: Iterable[Worker]) -> None:
        """A supervisor was (re)connected and has these workers; what it was told before counts no more."""
        known = self.workers
        self.workers = {worker.key: worker for worker in workers}
        self._ended.clear()
        self._told.clear()
        self._coming.clear()
        self._refused.clear()
        for worker in self.workers.values():
            before = known.get(worker.key)
            if before is not None:
                self._note_end(before, worker)
            elif worker.state in ("backoff", "failed"):
                self._keep_last_lines(worker.key, 0.0)
        self.supervisor_known.set()
        self.look_due.set()
        self._refresh()
        self.changed.set()

    def take(self, worker: Worker) -> None:
        """A worker's record changed."""
        before = self.workers.get(worker.key)
        self.workers[worker.key] = worker
        ended = self._ended.get(worker.key)
        if worker.pid != ended:
            self._ended.pop(worker.key, None)
        self._coming.discard(worker.key)
        # First of all, so that whoever sends it is also woken first.
        if ended is None and before is not None and before.pid and not worker.pid and worker.state in _UNASKED_ENDS:
            self._report_end(worker)
        if before is None or before.pid != worker.pid:
            self.look_due.set()
        if before is not None:
            self._note_end(before, worker)
        if worker.state == "exited":
            self._told.pop(worker.key, None)
        self._refresh_soon()

    def take_removed(self, key: Key) -> None:
        """The supervisor forgot a worker."""
        self.workers.pop(key, None)
        self._ended.pop(key, None)
        self._coming.discard(key)
        self._last_lines.pop(key, None)
        self._unready.pop(key, None)
        self._log_marks.pop(key, None)
        self._told.pop(key, None)
        self._refresh_soon()

    def process_ended(self, key: Key, pid: int) -> None:
        """The kernel says so. Its supervisor says what follows, in a moment or when it is there again."""
        worker = self.workers.get(key)
        if worker is not None and worker.pid == pid:
            self._ended[key] = pid
            self._report_end(_without_process(worker))
            self._refresh_soon()

    def found_unready(self, key: Key, pid: int, seen: str) -> None:
        """A check of this process, which was ready, failed too often."""
        if key in self.workers:
            self._unready[key] = pid, seen
            self._refresh_soon()

    def acknowledged(self, command: Command) -> None:
        """The supervisor took this command; it shows in the records soon."""
        self._told[command.key] = command

    def refused(self, command: Command, reason: str) -> None:
        """The supervisor refused this command: say so, and do not repeat it until something changes."""
        _LOG.error("%s/%d@%d: fleet-supervisor refused: %s", *command.key, reason)
        self._told[command.key] = command
        if isinstance(command, Run):
            self._coming.discard(command.key)
            self._refused[command.key] = reason
        self._refresh_soon()

    def giving(self) -> list[Command]:
        """What the supervisor is to be told now, and has not acknowledged yet. From now on that counts as under way."""
        commands = [
            command
            for command in self._commands
            if self._told.get(command.key) != command and not (self.leaving and isinstance(command, Run))
        ]
        self._coming.update(
            command.key for command in commands if isinstance(command, Run) and command.key not in self.workers
        )
        return commands

    def withheld(self, command: Command) -> None:
        """This command was not given after all."""
        self._coming.discard(command.key)
        self._refresh_soon()

    def leave(self, *, leaving: bool) -> None:
        """Begin to leave, or stay after all."""
        self.leaving = leaving
        self.drained.clear()
        self.leaving_changed.set()
        self.commands_waiting.set()

    def running_specs(self) -> dict[Key, AppSpec]:
        """The specs of the targets that say run."""
        return {
            key: wanted.spec
            for key, wanted in self._wanted.items()
            if wanted.phase == types_pb2.PHASE_RUN and isinstance(wanted.spec, AppSpec)
        }

    def apps_to_compress(self) -> set[str]:
        """Apps whose old logs are to be compressed."""
        return {key.app for key, worker in self.workers.items() if worker.launch.log_compress}

    def demand(self, demands: Mapping[Key, Demand]) -> None:
        """These processes shall be replaced, and no others."""
        for key in demands.keys() - self.demands.keys():
            _LOG.warning("%s/%d@%d (pid %d) is to be replaced: %s", *key, demands[key].pid, demands[key].reason)
        self.demands = demands
        if demands:
            self.demanding.set()
        else:
            self.demanding.clear()

    def watch_usage(self, seconds: float) -> None:
        """Somebody looks at usage for so long."""
        self.usage_watched_until = boot_time() + min(seconds, _LONGEST_WATCH_SECONDS)
        self.look_due.set()

    def session_began(self) -> None:
        self._away_since = None

    def session_ended(self) -> None:
        if self._away_since is None:
            self._away_since = boot_time()

    @property
    def in_session(self) -> bool:
        return self._away_since is None

    def away_seconds(self, now: float) -> float:
        """For how long there has been no session with a controller."""
        return now - self._away_since if self._away_since is not None else 0.0

    def rules(self) -> dict[Key, Rule]:
        """How each worker that shall run is checked."""
        rules: dict[Key, Rule] = {}
        for key, wanted in self._wanted.items():
            worker = self.workers.get(key)
            if worker is None or wanted.phase != types_pb2.PHASE_RUN or isinstance(wanted.spec, str):
                continue
            address = Extra.of(worker.launch).address or self.context.address
            rules[key] = Rule.of(wanted.spec, address, worker.launch.port or worker.launch.listen_port)
        return rules

    async def _in_writer(self, write: Callable[[Path, _Content], None], path: Path, content: _Content) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, write, path, content)

    def _note_end(self, before: Worker, worker: Worker) -> None:
        """Where a process ended and nobody had asked for it, keep what it printed last."""
        if not before.pid or before.pid == worker.pid:
            return
        crashed = worker.restarts > before.restarts or worker.state == "failed"
        if crashed or (worker.state == "exited" and before.state != "stopping"):
            started = time.time() - (boot_time() - before.started_monotonic)
            asyncio.get_running_loop().call_later(_LOG_SECONDS, self._keep_last_lines, worker.key, started)

    def _report_end(self, worker: Worker) -> None:
        """Report a crash before anything is planned: until it is known, balancers send requests there."""
        if worker.key in self.statuses:
            status = status_of(worker.key, self._wanted.get(worker.key), worker, worker.launch.port, None, self.context)
            status.last_lines.extend(self._last_lines.get(worker.key, ()))
            self.statuses = {**self.statuses, worker.key: status}
            self.changed.set()
            self._rest_until = max(self._rest_until, asyncio.get_running_loop().time() + _REPORT_SECONDS)

    def _keep_last_lines(self, key: Key, since: float) -> None:
        if key in self.workers:
            self._last_lines[key] = read_last_lines(self._log_dir, key.app, key.slot, since, self._log_marks.get(key))
            self._refresh_soon()

    def _refresh_soon(self) -> None:
        """In this turn of the loop; but never plan more than half of the time: many workers that start report one by one."""
        if not self._refresh_due:
            self._refresh_due = True
            asyncio.get_running_loop().call_at(self._rest_until, self._refresh)

    def _refresh(self) -> None:
        began = time.monotonic()
        self._plan()
        ended = time.monotonic()
        self._rest_until = asyncio.get_running_loop().time() + (ended - began)

    def _plan(self) -> None:
        self._refresh_due = False
        if not self.supervisor_known.is_set():
            return
        wanted = self._localised()
        workers = {**self.workers, **{key: _without_process(self.workers[key]) for key in self._ended}}
        plan = reconcile(wanted, workers, self._ports, self._told, self.context, self._listening_ports(), self._coming)
        self._ports = plan.ports
        for key, reason in self._refused.items():
            if key in plan.statuses and key not in self.workers:
                plan.statuses[key].state = types_pb2.WORKER_STATE_FAILED
                plan.statuses[key].reason = reason
        for key, (pid, seen) in self._unready.items():
            status = plan.statuses.get(key)
            if status is not None and status.pid == pid and status.state == types_pb2.WORKER_STATE_UNREADY:
                status.reason = seen
        for key, lines in self._last_lines.items():
            if key in plan.statuses:
                plan.statuses[key].last_lines.extend(lines)
        if plan.statuses != self.statuses:
            self.statuses = plan.statuses
            self.changed.set()
        self._commands = plan.commands
        for command in plan.commands:
            if isinstance(command, Run) and command.key not in self.workers and command.key not in self._log_marks:
                self._log_marks[command.key] = mark_logs(self._log_dir, command.key.app, command.key.slot)
        if plan.commands:
            self.commands_waiting.set()
        self.on_refresh()

    def look_again(self) -> None:
        """Plan anew where the plan hangs on what nobody tells of: files and accounts of this host."""
        if any(self._is_local(wanted) for wanted in self._wanted.values()):
            self._refresh_soon()

    def _localised(self) -> dict[Key, Wanted]:
        """The targets, with what this host knows of their apps now."""
        found: dict[tuple[str, str], Local] = {}
        wanted = dict(self._wanted)
        code = set(map(self.artifacts.identity_in, {worker.launch.cwd for worker in self.workers.values()}))
        for key, target in self._wanted.items():
            if self._is_local(target) and isinstance(target.spec, AppSpec):
                one = target.spec_digest, target.artifact_digest
                local = found.get(one) or self._local(target.spec, target.artifact_digest)
                found[one] = local
                wanted[key] = replace(target, local=local)
                if target.artifact_digest:
                    code.add(self.artifacts.identity(target.artifact_digest, target.spec))
        preparations: list[agent_pb2.PreparationStatus] = []
        for preparation, spec in self._to_prepare:
            preparations.append(self.artifacts.prepare(preparation, spec))
            if isinstance(spec, AppSpec):
                code.add(self.artifacts.identity(preparation.artifact_digest, spec))
        if tuple(preparations) != self.preparations:
            self.preparations = tuple(preparations)
            self.changed.set()
        self.artifacts.keep(code)
        hindered = any(local.problem for local in found.values())
        if hindered and not self.hindered:
            self.look_due.set()
        self.hindered = hindered
        return wanted

    def _is_local(self, wanted: Wanted) -> bool:
        if isinstance(wanted.spec, str) or wanted.phase != types_pb2.PHASE_RUN:
            return False
        return bool(wanted.artifact_digest or wanted.spec.env_files or self.context.user_of(wanted.spec))

    def _local(self, spec: AppSpec, artifact_digest: str) -> Local:
        code = self.artifacts.local(artifact_digest, spec) if artifact_digest else Local()
        user = self.context.user_of(spec)
        account = find_account(user) if user else None
        variables = account.variables() if account else None
        if code.waiting or code.problem:
            return replace(code, account_variables=variables)
        try:
            files = self._env_files.variables(spec.env_files, str(Path(code.code, spec.cwd)))
            return replace(code, file_variables=files, account_variables=variables)
        except EnvFileError as error:
            return replace(code, account_variables=variables, problem=str(error))

    def _listening_ports(self) -> frozenset[int]:
        """Looked up only when a port may have to be given out."""
        live = {key for key, worker in self.workers.items() if worker.state != "exited"}
        if self._wanted.keys() <= live | self._told.keys():
            return frozenset()
        try:
            return frozenset(listener.port for listener in self._listeners.read())
        except OSError as error:
            _LOG.error("cannot see which ports are taken: %s", error)
            return frozenset()


def _without_process(worker: Worker) -> Worker:
    """As its supervisor will see it in a moment, as far as can be known: what it restarts, it restarts at once."""
    return replace(worker, state="starting", pid=0, reason="its process ended")
