"""One history carried out: faults and operations on a fleet under load, everything recorded as it happens."""

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from tests.faults.fleet.plan import Blow, Command, Episode, Topology, describe
from tests.faults.fleet.record import Recorder, Sight
from tests.hosts.host import Host, MachineError
from tests.hosts.links import Cut
from tests.hosts.operated_fleet import PROGRAMS, CommandFailed, OperatedFleet

_SETTLE_SECONDS = 150.0
"""Agents and balancers back off for some seconds, a rollout that met a fault goes on or back; a drain may wait a minute for
requests that died with a host."""
_QUIET_SECONDS = 3.0
_OPERATION_TIMEOUT = "60s"
_STUTTER_SECONDS = (0.4, 0.2)
"""A slow service: halted, then running."""
_STRANGER = "stranger"
_SURGE = 1


class Suite:
    """Carries episodes out on `fleet`, and records them in `folder`."""

    def __init__(
        self, fleet: OperatedFleet, topology: Topology, recorder: Recorder, seed: int, say: Callable[[str], None]
    ) -> None:
        self._fleet = fleet
        self._workers = topology.workers
        self._recorder = recorder
        self._seed = seed
        self._say = say
        self._numbers = itertools.count(1)
        self._operating = threading.Lock()
        self._strangers: dict[str, int] = {}
        self._rebooted: set[str] = set()

    def run(self, episodes: Iterator[Episode], seconds: float) -> bool:
        """Episodes until `seconds` have passed, or the fleet did not settle after one. Returns whether it always did."""
        fleet = self._fleet
        self._recorder.keep(
            "meta.json",
            {
                "seed": self._seed,
                "app": fleet.app,
                "size": sum(each["size"] for each in fleet.json("ls") if each["name"] == fleet.app),
                "surge": _SURGE,
                "hosts": self._workers,
                "addresses": fleet.addresses,
                "lost_after": fleet.lost_after,
            },
        )
        began = time.monotonic()
        self._recorder.add("begin", began)
        with self._fleet.load() as tally:
            settled = self._look(began)
            for number, episode in enumerate(episodes, 1):
                if not settled or time.monotonic() - began > seconds:
                    break
                self._say(f"episode {number}, {time.monotonic() - began:.0f} s, {tally.failed.total()} requests failed")
                for line in describe(episode):
                    self._say(f"    {line}")
                settled = self._carry_out(episode)
        self._recorder.add("end", time.monotonic())
        self._recorder.keep_failures(tally.details)
        self._recorder.keep("load.json", tally.summary(time.monotonic() - began))
        self._keep_logs()
        return settled

    def _carry_out(self, episode: Episode) -> bool:
        begin = time.monotonic()
        with ThreadPoolExecutor(max_workers=len(episode.actions) + 1) as pool:
            carried_out = []
            for action in episode.actions:
                time.sleep(max(0.0, begin + action.at - time.monotonic()))
                todo = self._strike if isinstance(action, Blow) else self._operate_on
                carried_out.append(pool.submit(todo, action))  # type: ignore[arg-type]
            for each in carried_out:
                each.result()
        over = time.monotonic()
        for argv in episode.afterwards:
            self._operate(argv)
        return self._look(over)

    # Operations

    def _operate_on(self, command: Command) -> None:
        self._operate(command.argv)

    def _operate(self, argv: tuple[str, ...]) -> None:
        """One at a time: the operator waits for an answer."""
        with self._operating:
            identifier = next(self._numbers)
            self._recorder.add("operation", time.monotonic(), id=identifier, argv=argv)
            try:
                code, output = self._fleet.try_fleetctl(*argv, "--yes", "--timeout", _OPERATION_TIMEOUT)
            except subprocess.TimeoutExpired:
                return  # the record shows that it never ended
            self._recorder.add("answer", time.monotonic(), id=identifier, code=code, output=output)

    # Faults

    def _strike(self, blow: Blow) -> None:
        machine = self._fleet.machines[blow.machine]
        detail = blow.detail
        if blow.kind == "worker killed":
            pids = self._processes(machine)
            if not pids:
                return
            detail = str(pids[int(blow.pick * len(pids))])
        identifier = next(self._numbers)
        self._recorder.add(
            "fault begins", time.monotonic(), id=identifier, kind=blow.kind, machine=blow.machine, detail=detail
        )
        # Two faults may meet on one machine: one of them may find nothing left to strike.
        with contextlib.suppress(MachineError):
            self._inflict(machine, blow, detail)
        self._recorder.add("fault ends", time.monotonic(), id=identifier)

    def _inflict(self, machine: Host, blow: Blow, detail: str) -> None:
        match blow.kind:
            case "kill":
                machine.run(f"systemctl kill --kill-whom main --signal KILL {blow.unit}")
            case "restart":
                machine.run(f"systemctl restart {blow.unit}")
            case "halt":
                self._halted(machine, blow.unit, blow.seconds)
            case "slow":
                end = time.monotonic() + blow.seconds
                while time.monotonic() < end:
                    self._halted(machine, blow.unit, _STUTTER_SECONDS[0])
                    time.sleep(_STUTTER_SECONDS[1])
            case "worker killed":
                machine.run(f"kill -KILL {detail}")
            case "partition":
                assert blow.link is not None
                addresses = [self._fleet.addresses[peer] for peer in blow.link.peers]
                machine.cut([Cut(address, blow.link.port, blow.direction, blow.share) for address in addresses])
                time.sleep(blow.seconds)
                machine.mend()
            case "freeze":
                machine.freeze()
                time.sleep(blow.seconds)
                machine.thaw()
            case "reboot":
                self._rebooted.add(machine.name)
                machine.reboot()
            case "power cut":
                self._rebooted.add(machine.name)
                machine.power_cut()
                time.sleep(blow.seconds)
                machine.power_on()
            case _:
                raise ValueError(blow.kind)

    @staticmethod
    def _halted(machine: Host, unit: str, seconds: float) -> None:
        machine.run(f"systemctl kill --kill-whom main --signal STOP {unit}")
        try:
            time.sleep(seconds)
        finally:
            machine.run(f"systemctl kill --kill-whom main --signal CONT {unit}")

    # Looking

    def _look(self, over: float) -> bool:
        """Wait until all is as it should be, and record it, or what is not."""
        settled = True
        try:
            self._fleet.wait_until_settled(_SETTLE_SECONDS)
        except MachineError:
            settled = False
        at = time.monotonic()
        sight = self._sight(at, at - over) if settled else self._not_settled(at, at - over)
        self._recorder.add("sight", at, sight={key: value for key, value in asdict(sight).items() if key != "at"})
        return settled

    def _sight(self, at: float, seconds: float) -> Sight:
        fleet = self._fleet
        try:
            for host in self._workers:
                self._meet_stranger(host)
            (app,) = [each for each in fleet.json("ls") if each["name"] == fleet.app]
            before = fleet.etcd_revision()
            time.sleep(_QUIET_SECONDS)
            after = fleet.etcd_revision()
            variables = fleet.json("env-get", fleet.app)
            reported = fleet.workers()
            running = {host: self._processes(fleet.machines[host]) for host in self._workers}
        except (CommandFailed, MachineError) as error:
            return Sight(at, seconds, f"settled, and then: {error}")
        return Sight(
            at,
            seconds,
            "",
            size=app["size"],
            generation=app["generation"],
            revision=app["revision"],
            variable=variables.get("NUMBER", ""),
            placement=app["placement"],
            reported=reported,
            running=running,
            strangers={host: self._stranger_lives(host) for host in self._workers},
            writes=after - before if before is not None and after is not None else 0,
        )

    def _not_settled(self, at: float, seconds: float) -> Sight:
        words = [
            self._fleet.try_fleetctl(*argv)[1]
            for argv in (("status",), ("status", self._fleet.app), ("host", "ls"), ("balancer", "ls"))
        ]
        return Sight(at, seconds, "not settled: " + " / ".join(" ".join(" / ".join(words).split("\n")).split()))

    def _meet_stranger(self, host: str) -> None:
        """A process of the workers' user that is none of ours, started where none was, or where the host was booted since."""
        if host in self._strangers and host not in self._rebooted:
            return
        self._rebooted.discard(host)
        machine = self._fleet.machines[host]
        machine.run(
            f"systemctl is-active {_STRANGER} || systemd-run --uid=fleet --unit={_STRANGER} --collect sleep infinity"
        )
        self._strangers[host] = machine.main_pid(_STRANGER)

    def _stranger_lives(self, host: str) -> bool:
        return self._fleet.machines[host].main_pid(_STRANGER) == self._strangers[host]

    def _processes(self, machine: Host) -> list[int]:
        """Each worker's first: it leads a session of its own."""
        found = machine.run(
            f"for file in $(grep -lzxs FLEET_APP={self._fleet.app} /proc/[0-9]*/environ); do pid=${{file//[!0-9]/}};"
            " [ \"$(ps -o sid= -p $pid | tr -d ' ')\" = $pid ] && echo $pid; done; true"
        )
        return sorted(map(int, found.split()))

    def _keep_logs(self) -> None:
        for name, machine in self._fleet.machines.items():
            (self._recorder.folder / "services" / f"{name}.log").write_text(
                machine.journal(1_000_000, programs=(*PROGRAMS, "etcd"))
            )
