"""The histories, each of which ends in a verdict: `python -m tests.faults.planted.histories NAME --seed 1`.

Exit codes: 0 no violation, 1 violations, printed one a line. A process of its own, because it is run from checkouts with a bug.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from fleet_agent.supervisor.protocol import Key, Launch
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, Runtime
from tests.faults.evidence import read_evidence
from tests.faults.fleet.checker import check
from tests.faults.fleet.record import Fault, Operation, Record, Sight, epochs_of
from tests.faults.host import HostUnderFaults
from tests.faults.judge import judge
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost
from tests.integration.fleet.harness import JOURNAL, PLAIN_SERVER, Fleet, Load, wait_for
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch
from tests.load.journal import Life, Place, read_journals
from tests.load.tally import Failure, FailureKind

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
_ATTEMPTS = 200
_SETTLED_SECONDS = 4.0
"""What a stopped worker needs to end, and an agent to find another controller."""
_STARTS, _ROUNDS = 32, 40
_STARTING_SECONDS = 0.06
"""What so many starts take, about."""
_FAULT_SECONDS, _FAULT_RATE = 25.0, 1000.0


def epochs(folder: Path, seed: int) -> list[str]:
    """A leader is frozen, another leads, the first is thawed and still believes in what it wanted then."""
    return asyncio.run(_epochs(folder, Random(seed)))


async def _epochs(folder: Path, dice: Random) -> list[str]:
    journals = folder / "journals"
    journals.mkdir()
    old, new = FakeController(folder / "tls", Epoch(1, 10)), FakeController(folder / "tls", Epoch(1, 20))
    await old.start()
    await new.start()
    await new.stop()
    host = RunningHost(folder, folder / "tls", old.address, new.address)
    spec = AppSpec.model_validate(
        {
            "name": "my-app",
            "argv": ["node", str(PLAIN_SERVER)],
            "runtime": Runtime.NODE,
            "cwd": str(folder),
            "env": {"NODE_OPTIONS": f"--require {JOURNAL}", "WORKER_JOURNAL_DIR": str(journals)},
        }
    )
    log = folder / "agent.log"
    begin = time.monotonic()
    try:
        await host.supervisor.start()
        with log.open("wb") as file:
            await host.start_agent(file)
        await old.until_session()
        old.assign(target(spec, 1), target(spec, 2), specs=(spec,))
        for slot in (1, 2):
            await old.until_state(("my-app", slot, 1), "READY")
        frozen = time.monotonic()
        await old.stop()
        await new.start(new.address)
        await new.until_session()
        new.assign(target(spec, 1), target(spec, 2), specs=(spec,))
        await new.until(lambda: any(report.assignment_epoch == new.epoch.to_proto() for _, report in new.reports))
        await new.stop()
        thawed = time.monotonic()
        sessions = len(old.hellos)
        await old.start(old.address)
        await old.until(lambda: len(old.hellos) > sessions)
        with contextlib.suppress(AssertionError):  # its session may be over already, as it should
            doomed = dice.choice((1, 2))
            old.assign(target(spec, doomed, phase="PHASE_STOP"), target(spec, 3 - doomed), specs=(spec,))
        await asyncio.sleep(_SETTLED_SECONDS)
        end = time.monotonic()
        await asyncio.sleep(1.0)  # a beat after the end proves a life up to the end
        lives = read_journals(journals)
    finally:
        await old.stop()
        await new.stop()
        await host.clean_up()
    faults = [Fault("freeze", "ctl1", frozen, thawed)]
    record = _record(begin, end, lives=lives, faults=faults, size=2, hosts=("host1",))
    return _violations(record, log.read_text().splitlines())


def acknowledgement(folder: Path, seed: int) -> list[str]:
    """A soft restart while one of two balancers does not answer: it must wait for it."""
    begin = time.monotonic()
    with Fleet(folder / "fleet", hosts=3, balancers=2) as fleet:
        fleet.start()
        address = fleet.start_app(PLAIN_SERVER, 6, "--bake-time", "1s")
        service, pid = fleet.daemon("balancer", str(Random(seed).choice((1, 2))))
        load = Load(fleet.addresses(address), fleet.folder, "--post-share", "1", "--rate", "300", "--seed", str(seed))
        load.wait_for_more(200)
        asked = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            with fleet.begun("soft-restart", "my-app", "--timeout", "60s") as operation:
                load.wait_for_more(2000, 60)
                os.kill(pid, signal.SIGCONT)
                thawed = time.monotonic()
                code = operation.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        answered = time.monotonic()
        load.wait_for_more(200)
        end = time.monotonic()
        wait_for(lambda: len(_beating(fleet, end)) >= 6, "six workers alive after the end")
        lives = read_journals(fleet.journals)
        summary = load.stop()
    failures = [Failure(**{**detail, "kind": FailureKind(detail["kind"])}) for detail in summary["details"]]
    record = _record(
        begin,
        end,
        lives=lives,
        failures=failures,
        faults=[Fault("halt", service, asked, thawed, "fleet-balancer")],
        operations=[Operation(("soft-restart", "my-app"), asked, answered, code, "done")],
        sights=[Sight(end, 0.0, "", size=6, placement={"host1": 2, "host2": 2, "host3": 2})],
        size=6,
        hosts=("host1", "host2", "host3"),
    )
    return _violations(record)


def _beating(fleet: Fleet, moment: float) -> list[int]:
    return [life.pid for life in read_journals(fleet.journals) if life.last_beat > moment]


def adoption(folder: Path, seed: int) -> list[str]:
    """A worker dies together with its supervisor, and its pid is somebody else's when the next one comes."""
    return asyncio.run(_adoption(folder, seed))


async def _adoption(folder: Path, seed: int) -> list[str]:
    begin = time.monotonic()
    supervisor = RunningSupervisor(folder)
    try:
        await supervisor.start()
        worker = await supervisor.run(launch("sleep", str(1000 + seed)))
        await supervisor.kill()
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: not Path(f"/proc/{worker.pid}").exists(), "the worker is gone, with its pid")
        stranger = await _with_pid(worker.pid)
        try:
            await supervisor.start()
            settled = await supervisor.until(lambda seen: seen.pid > 0, KEY)
            running = [settled.pid] if settled.pid != stranger.pid else []
            await supervisor.client.stop_all(5)
            sight = Sight(
                time.monotonic(),
                0.0,
                "",
                reported={"shop/host1/1": settled.pid},
                running={"host1": running},
                strangers={"host1": alive(stranger.pid) and stranger.returncode is None},
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                stranger.kill()
            await stranger.wait()
    finally:
        await supervisor.clean_up()
    return _violations(_record(begin, time.monotonic(), sights=[sight], size=0, hosts=("host1",)))


async def _with_pid(pid: int) -> asyncio.subprocess.Process:
    """Others start processes too, and may take the number first."""
    for _ in range(_ATTEMPTS):
        _LAST_PID.write_text(str(pid - 1))
        process = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
        if process.pid == pid:
            return process
        process.kill()
        await process.wait()
    raise RuntimeError(f"pid {pid} went to somebody else {_ATTEMPTS} times: run it again")


def journal(folder: Path, seed: int) -> list[str]:
    """A supervisor killed while it starts many workers, again and again: no process may be unrecorded."""
    return asyncio.run(_journal(folder, Random(seed)))


async def _journal(folder: Path, dice: Random) -> list[str]:
    mark = str(folder)
    begin = time.monotonic()
    supervisor = RunningSupervisor(folder)
    sights: list[Sight] = []
    lives: list[Life] = []
    try:
        await supervisor.start()
        for round_ in range(1, _ROUNDS + 1):
            keys = [Key("shop", slot, round_) for slot in range(1, _STARTS + 1)]
            asking = [asyncio.create_task(supervisor.client.run(key, _sleeper(key, mark))) for key in keys]
            await asyncio.sleep(dice.uniform(0.0, _STARTING_SECONDS))
            await supervisor.kill()
            await asyncio.gather(*asking, return_exceptions=True)
            await supervisor.start()
            for key in keys:
                await supervisor.client.run(key, _sleeper(key, mark))
            for key in keys:
                await supervisor.until(lambda worker: worker.pid > 0, key)
            reported = {f"shop/host1/{key.slot}": supervisor.workers[key].pid for key in keys}
            known = set(reported.values())
            await eventually(lambda known=known: known <= _sleepers(mark).keys(), "they all run")  # type: ignore[misc]
            running = _sleepers(mark)
            now = time.monotonic()
            sights.append(Sight(now, 0.0, "", reported=reported, running={"host1": sorted(running)}))
            lives += [Life(pid, Place("shop", "host1", slot, round_), now, now) for pid, slot in running.items()]
            await supervisor.client.stop_all(0)
            for key in keys:
                await supervisor.client.forget(key)
            for pid in _sleepers(mark):
                os.kill(pid, signal.SIGKILL)  # the bug's: nobody else knows of it
            if len(running) != len(keys):
                break
    finally:
        await supervisor.clean_up()
    end = begin  # of these lives nothing is asked but whether two are one worker's
    return _violations(_record(begin, end, sights=sights, lives=lives, size=0, hosts=("host1",)))


def _sleeper(key: Key, mark: str) -> Launch:
    return launch(
        "sleep", "1000", cwd=mark, env={"PATH": os.environ["PATH"], "FLEET_SLOT": str(key.slot), "FLEET_MARK": mark}
    )


def _sleepers(mark: str) -> dict[int, int]:
    """Pid → slot of every process of the history, whoever knows of it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if environment.get("FLEET_MARK") == mark and alive(int(entry.name)):
            found[int(entry.name)] = int(environment["FLEET_SLOT"])
    return found


def host(folder: Path, seed: int) -> list[str]:
    """Faults of one host's agent and supervisor, judged by the workers' journals, as `make faults` has them."""
    suffering = HostUnderFaults(folder, seed, _FAULT_SECONDS, _FAULT_RATE, timestamps=False)
    asyncio.run(suffering.run())
    return judge(read_evidence(suffering.journals, suffering.log_dir, suffering.history_path)).violations


HISTORIES: dict[str, Callable[[Path, int], list[str]]] = {
    "epochs": epochs,
    "acknowledgement": acknowledgement,
    "adoption": adoption,
    "journal": journal,
    "lines": host,
    "doubles": host,
    "pipes": host,
}
"""By the name of the bug."""


def possible(name: str) -> str:
    """Why the history cannot be had here; "": it can."""
    if name == "adoption":
        try:
            _LAST_PID.write_text(_LAST_PID.read_text())
        except OSError:
            return f"needs to write {_LAST_PID}"
    return ""


def _record(begin: float, end: float, **parts: object) -> Record:
    defaults = {"seed": 0, "app": "my-app", "surge": 1, "addresses": {}, "lost_after": 150.0}
    return Record(begin=begin, end=end, **{**defaults, **parts})  # type: ignore[arg-type]


def _violations(record: Record, agent_log: list[str] | None = None) -> list[str]:
    seen = epochs_of("host1", agent_log or [])
    with_epochs = Record(**{**{name: getattr(record, name) for name in Record.__slots__}, "epochs": seen})
    return [str(violation) for violation in check(with_epochs)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.planted.histories")
    parser.add_argument("name", choices=sorted(HISTORIES))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-planted-") as folder:
        violations = HISTORIES[arguments.name](Path(folder), arguments.seed)
    for violation in violations:
        print(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
