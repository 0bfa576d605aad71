"""The agent's plan against a model of the supervisor: whatever was there, the assignment comes true, and then nothing changes."""

import dataclasses
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.v1 import types_pb2
from fleet_agent.launch import HostContext, Local
from fleet_agent.ports import PortTable
from fleet_agent.reconcile import Command, Forget, Plan, Run, Stop, Wanted, reconcile
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.spec import AppSpec

HOST = HostContext("host1", "10.0.0.1", {"PATH": "/bin"}, "/preload.js")
SPECS = {
    "web": AppSpec.model_validate({"name": "web", "argv": ["serve"], "cwd": "/"}),
    "cron": AppSpec.model_validate({"name": "cron", "argv": ["tick"], "cwd": "/", "listen_mode": "none"}),
    "job": AppSpec.model_validate(
        {"name": "job", "argv": ["work"], "cwd": "/", "restart": {"mode": "never"}, "env_files": ["env"]}
    ),
    "pool": AppSpec.model_validate({"name": "pool", "argv": ["serve"], "cwd": "/", "listen_mode": "socket"}),
}
FIRST, LAST = 100, 130
RUN, STOP = types_pb2.PHASE_RUN, types_pb2.PHASE_STOP

keys = st.builds(Key, st.sampled_from(sorted(SPECS)), st.integers(1, 3), st.integers(1, 2))
assignments = st.dictionaries(keys, st.sampled_from([RUN, STOP]), max_size=8)
live_states = ("starting", "running", "unready", "stopping", "backoff")


def wanted(phases: dict[Key, types_pb2.Phase.ValueType]) -> dict[Key, Wanted]:
    return {key: Wanted(key, 1, phase, f"digest-{key.app}", SPECS[key.app]) for key, phase in phases.items()}


class ModelSupervisor:
    """What protocol.py promises, without processes."""

    def __init__(self) -> None:
        self.workers: dict[Key, Worker] = {}
        self.started: list[Key] = []
        self.resting: set[Key] = set()
        """Ended by themselves, and not to be started again under an equal launch."""

    def apply(self, command: Command) -> None:
        worker = self.workers.get(command.key)
        match command:
            case Run(key, launch):
                rests = worker is not None and key in self.resting and worker.launch == launch
                if rests:
                    return
                if worker is None or worker.state == "exited" or (worker.state == "failed" and worker.launch != launch):
                    self.resting.discard(key)
                    self.workers[key] = Worker(key, launch, "starting", pid=len(self.started) + 1)
                    self.started.append(key)
                assert worker is None or worker.state != "stopping", "a stop that was sent is not undone"
            case Stop(key):
                assert worker is not None
                self.resting.discard(key)
                state = "exited" if worker.state in ("failed", "backoff", "exited") else "stopping"
                self.workers[key] = dataclasses.replace(worker, state=state)
            case Forget(key):
                assert worker is not None
                assert worker.state in ("exited", "failed"), "refused by the supervisor"
                del self.workers[key]
                self.resting.discard(key)

    def end_stopping(self) -> None:
        for key, worker in self.workers.items():
            if worker.state == "stopping":
                self.workers[key] = dataclasses.replace(worker, state="exited", pid=0)


class Agent:
    """The shell around the plan, as host.py and supervisor_link.py are it."""

    def __init__(self) -> None:
        self.targets: dict[Key, Wanted] = {}
        self.ports = PortTable(FIRST, LAST)
        self.told: dict[Key, Command] = {}
        self.local = Local()
        self.down: set[Key] = set()

    def plan(self, supervisor: ModelSupervisor, listening: Iterable[int] = ()) -> Plan:
        for key in list(self.told):
            worker = supervisor.workers.get(key)
            if worker is None or (worker.state == "exited" and key not in self.down):
                del self.told[key]
        self.down = {key for key, worker in supervisor.workers.items() if worker.state == "exited"}
        targets = {key: dataclasses.replace(target, local=self.local) for key, target in self.targets.items()}
        plan = reconcile(targets, supervisor.workers, self.ports, self.told, HOST, frozenset(listening))
        self.ports = plan.ports
        return plan

    def act(self, supervisor: ModelSupervisor) -> list[Command]:
        commands = self.plan(supervisor).commands
        for command in commands:
            supervisor.apply(command)
            self.told[command.key] = command
        return commands


class ReconcileMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.supervisor = ModelSupervisor()
        self.agent = Agent()

    @rule(phases=assignments)
    def assign(self, phases: dict[Key, types_pb2.Phase.ValueType]) -> None:
        self.agent.targets = wanted(phases)

    @rule()
    def act(self) -> None:
        before = len(self.supervisor.started)
        self.agent.act(self.supervisor)
        for key in self.supervisor.started[before:]:
            assert self.agent.targets[key].phase == RUN, "a target with phase stop never runs"

    @rule()
    def act_twice(self) -> None:
        first = self.agent.act(self.supervisor)
        second = self.agent.act(self.supervisor)
        assert not [command for command in second if command in first], "nothing is said twice"

    @rule()
    def end_stopping(self) -> None:
        self.supervisor.end_stopping()

    @precondition(lambda self: self.supervisor.workers)
    @rule(data=st.data(), state=st.sampled_from(["starting", "running", "unready", "backoff", "failed", "stopping"]))
    def happens(self, data: st.DataObject, state: str) -> None:
        """A worker becomes ready, unready, crashes, is given up, or has missed its start deadline."""
        key = data.draw(st.sampled_from(sorted(self.supervisor.workers)))
        worker = self.supervisor.workers[key]
        if worker.state not in ("exited", "stopping"):
            pid = worker.pid if state in ("starting", "running", "unready", "stopping") else 0
            self.supervisor.workers[key] = dataclasses.replace(worker, state=state, pid=pid)

    @precondition(lambda self: any(key.app == "job" for key in self.supervisor.workers))
    @rule(data=st.data())
    def finishes(self, data: st.DataObject) -> None:
        """A worker ends by itself, and its policy lets it rest; the host's env file changes afterwards."""
        key = data.draw(st.sampled_from(sorted(key for key in self.supervisor.workers if key.app == "job")))
        worker = self.supervisor.workers[key]
        if worker.state in ("starting", "running"):
            self.supervisor.workers[key] = dataclasses.replace(worker, state="exited", pid=0)
            self.supervisor.resting.add(key)
        self.agent.local = Local({"CHANGED": key.app})

    @rule()
    def restart_agent(self) -> None:
        """Its table of ports is durable; what it told is not remembered."""
        self.agent.told = {}

    @rule()
    def lose_ports_file(self) -> None:
        self.agent.ports = PortTable(FIRST, LAST)

    @invariant()
    def live_workers_never_share_a_port(self) -> None:
        ports = [w.launch.port for w in self.supervisor.workers.values() if w.state in live_states and w.launch.port]
        live = [worker.launch for worker in self.supervisor.workers.values() if worker.state in live_states]
        shared = {launch.listen_port for launch in live if launch.listen_port}
        assert len(shared) <= 1, "all workers of an app share one"
        assert len(ports) == len(set(ports))
        assert not shared & set(ports)

    @invariant()
    def every_target_and_worker_is_reported_once_and_truly(self) -> None:
        statuses = self.agent.plan(self.supervisor).statuses
        assert statuses.keys() == self.agent.targets.keys() | self.supervisor.workers.keys()
        for key, status in statuses.items():
            worker = self.supervisor.workers.get(key)
            if worker is None:
                assert status.state != types_pb2.WORKER_STATE_READY
            elif worker.state == "running":
                assert status.state == types_pb2.WORKER_STATE_READY
                assert status.port == (worker.launch.port or worker.launch.listen_port)

    def teardown(self) -> None:
        """From any state, without further events, the assignment comes true."""
        for _ in range(6):
            self.agent.act(self.supervisor)
            self.supervisor.end_stopping()
        assert self.agent.act(self.supervisor) == []
        workers, targets = self.supervisor.workers, self.agent.targets
        statuses = self.agent.plan(self.supervisor).statuses
        assert workers.keys() <= targets.keys(), "what the assignment does not name is gone"
        for key, target in targets.items():
            if target.phase == RUN:
                if key in self.supervisor.resting:
                    assert statuses[key].state == types_pb2.WORKER_STATE_EXITED
                    assert statuses[key].phase == RUN, "completed"
                else:
                    assert workers[key].state in (*live_states, "failed")
            else:
                assert key not in workers or workers[key].state == "exited"
                assert statuses[key].state == types_pb2.WORKER_STATE_EXITED


TestReconcile = ReconcileMachine.TestCase
TestReconcile.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(assignments, st.sets(st.integers(FIRST, LAST), max_size=5))
def test_no_worker_is_given_a_port_another_program_listens_on(
    phases: dict[Key, types_pb2.Phase.ValueType], listening: set[int]
) -> None:
    agent, supervisor = Agent(), ModelSupervisor()
    agent.targets = wanted(phases)
    for command in agent.plan(supervisor, listening).commands:
        assert isinstance(command, Run)
        assert command.launch.port not in listening
        assert command.launch.listen_port not in listening
        assert (command.launch.port == 0) == (command.key.app in ("cron", "pool"))
        assert (command.launch.listen_port == 0) == (command.key.app != "pool")


@given(assignments)
def test_a_worker_of_an_older_agent_with_another_launch_is_told_once_and_not_stopped(
    phases: dict[Key, types_pb2.Phase.ValueType],
) -> None:
    agent, supervisor = Agent(), ModelSupervisor()
    agent.targets = wanted(dict.fromkeys(phases, RUN))
    old = [Launch(["old"], "/", {}, port=port) for port in range(FIRST, FIRST + len(phases))]
    for key, launch in zip(phases, old, strict=True):
        port = launch.port if key.app in ("web", "job") else 0
        supervisor.workers[key] = Worker(key, dataclasses.replace(launch, port=port), "running", pid=7)
    commands = agent.act(supervisor)
    assert all(isinstance(command, Run) for command in commands)
    assert all(
        command.launch.port == supervisor.workers[command.key].launch.port
        for command in commands
        if isinstance(command, Run)
    )
    assert supervisor.started == []
    assert agent.act(supervisor) == []
