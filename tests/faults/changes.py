"""`make faults-changes CHANGES=1000 SEED=1`: clients change things while leaders of etcd and of the controllers die.

Each change has one request id and is asked for until it is acknowledged, as fleetctl does. Meanwhile the leading controller, the
leading member of etcd, or both at once are killed and started again, now and then only once another leads. Then the judge
(`tests.faults.change_judge`) reads the final state, and every write etcd ever held: each change is there, once.
Exit codes: 0 kept, 1 broken.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random

from fleet.v1 import control_pb2
from fleetctl.connection import Connection
from fleetctl.errors import ExitCode, FleetError
from tests.faults.change_judge import Change, Kind, Recorder, judge
from tests.faults.many_controllers import ManyControllers
from tests.integration.fleet.harness import PLAIN_SERVER

CLIENTS = 4
APPS = ("app0", "app1", "app2")
HOSTS = ("host1", "host2", "host3")
FIRST_SIZE = 6
_LONGEST_PAUSE_SECONDS = 0.4
_IMPATIENT = 0.2
"""So large a share of first answers is lost: the call is given up while it is under way."""
_SHORT_PATIENCE_SECONDS = 0.03
_ACKNOWLEDGED_WITHIN_SECONDS = 60.0
_DOUBTFUL = frozenset({ExitCode.UNREACHABLE, ExitCode.REFUSED})
"""Exit codes after which a user asks again: nobody leads, etcd did not confirm it, others changed the object at that moment."""


class Victim(StrEnum):
    CONTROLLER = "controller"
    ETCD = "etcd"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Fault:
    """The leaders to kill once so many changes were acknowledged; `for_good`: not started again until others lead."""

    at: int
    victim: Victim
    for_good: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """A change, and how a client goes about it. Seconds."""

    change: Change
    pause: float
    """Before it asks."""
    patience: float | None
    """So soon it gives its first call up, and asks again with the same request id; None: it waits for the answer."""


def plan_changes(seed: int, number: int) -> list[list[Asking]]:
    """For each client its changes, in order. Pure, and the same for the same seed."""
    dice = Random(seed)
    planned: list[list[Asking]] = [[] for _ in range(CLIENTS)]
    for index in range(number):
        client = index % CLIENTS
        request = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        kind = dice.choice(list(Kind))
        target = HOSTS[client % len(HOSTS)] if kind is Kind.LABEL else dice.choice(APPS)
        amount = dice.choice((-1, 1, 2)) if kind is Kind.SIZE else 0
        change = Change(request, kind, target, client, index, amount)
        patience = dice.uniform(0.001, _SHORT_PATIENCE_SECONDS) if dice.random() < _IMPATIENT else None
        planned[client].append(Asking(change, dice.uniform(0.0, _LONGEST_PAUSE_SECONDS), patience))
    return planned


def plan_faults(seed: int, number: int, faults: int) -> list[Fault]:
    """Evenly spread; pure, and the same for the same seed."""
    dice = Random(seed + 1)
    return [
        Fault(number * index // (faults + 1), dice.choice(list(Victim)), dice.random() < 0.3)
        for index in range(1, faults + 1)
    ]


class Run:
    """One fleet, its clients and its faults."""

    def __init__(self, fleet: ManyControllers) -> None:
        self._fleet = fleet
        self.acknowledged: list[Change] = []
        self.asked = 0
        """Calls made for them, repeated ones included."""
        self.kills: list[str] = []
        self._progress = asyncio.Event()
        self._go = asyncio.Event()
        """Not set: clients wait until it is known who is to be killed, so that changes are under way when they are."""
        self._go.set()

    async def run(self, changes: list[list[Asking]], faults: list[Fault]) -> list[str]:
        """Everything that was broken, in words."""
        async with self._recorded() as recorder:
            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(self._client(planned)) for planned in changes]
                killer = group.create_task(self._kill(faults))
                await asyncio.wait({*clients, killer})
            last = await self._last_revision()
            await recorder.reach(last)
        planned = [asking.change for client in changes for asking in client]
        return judge(planned, {change.request for change in self.acknowledged}, recorder, first_size=FIRST_SIZE)

    async def _client(self, planned: list[Asking]) -> None:
        async with self._fleet.connection() as connection:
            for asking in planned:
                await asyncio.sleep(asking.pause)
                await self._go.wait()
                if asking.patience is not None:
                    self.asked += 1
                    with suppress(TimeoutError, FleetError):
                        async with asyncio.timeout(asking.patience):
                            await _ask(connection, asking.change)
                async with asyncio.timeout(_ACKNOWLEDGED_WITHIN_SECONDS):
                    await self._acknowledge(connection, asking.change)
                self.acknowledged.append(asking.change)
                self._progress.set()

    async def _acknowledge(self, connection: Connection, change: Change) -> None:
        while True:
            self.asked += 1
            try:
                await _ask(connection, change)
            except FleetError as error:
                if error.exit_code not in _DOUBTFUL:
                    raise AssertionError(f"{change}: {error.message}") from error
                await asyncio.sleep(0.1)
            else:
                return

    async def _kill(self, faults: list[Fault]) -> None:
        for fault in faults:
            while len(self.acknowledged) < fault.at:
                self._progress.clear()
                await self._progress.wait()
            self._go.clear()
            daemons = await asyncio.to_thread(self._fleet.daemons)
            names = []
            if fault.victim is not Victim.ETCD:
                names += [name for name, each in (await self._controllers()).items() if each["leads"]]
            if fault.victim is not Victim.CONTROLLER:
                names += [name for name in [await self._fleet.etcd_leader()] if name]
            self._go.set()
            if fault.for_good:
                with self._fleet.manager_away():
                    self._strike(names, daemons)
                    await self._others_lead(names)
            else:
                self._strike(names, daemons)

    def _strike(self, names: list[str], daemons: dict[str, int]) -> None:
        for name in names:
            # One that died a moment ago is only being started again.
            with suppress(ProcessLookupError, KeyError):
                os.kill(daemons[name], signal.SIGKILL)
                self.kills.append(name)

    async def _others_lead(self, killed: list[str]) -> None:
        async with asyncio.timeout(_ACKNOWLEDGED_WITHIN_SECONDS):
            while True:
                leaders = [name for name, each in (await self._controllers()).items() if each["leads"]]
                if leaders and not set(leaders) & set(killed) and await self._fleet.etcd_leader() not in ("", *killed):
                    return
                await asyncio.sleep(0.1)

    async def _controllers(self) -> dict[str, dict[str, object]]:
        return await asyncio.to_thread(self._fleet.controllers)

    @asynccontextmanager
    async def _recorded(self) -> AsyncIterator[Recorder]:
        store = self._fleet.store()
        recorder = Recorder(store)
        recording = asyncio.create_task(recorder.run())
        try:
            await recorder.began.wait()
            yield recorder
        finally:
            recording.cancel()
            with suppress(asyncio.CancelledError):
                await recording
            await store.close()

    async def _last_revision(self) -> int:
        """Once every rollout has ended: a controller writes that after the change was acknowledged."""
        async with self._fleet.connection() as connection, asyncio.timeout(_ACKNOWLEDGED_WITHIN_SECONDS):
            while True:
                answer = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
                if all(app.rollout.state == control_pb2.ROLLOUT_STATE_DONE for app in answer.apps):
                    break
                await asyncio.sleep(0.1)
        store = self._fleet.store()
        try:
            return (await store.read("/fleet/v1/", timeout=20.0)).revision
        finally:
            await store.close()


async def _ask(connection: Connection, change: Change) -> None:
    options = control_pb2.RolloutOptions(supersede=True)
    if change.kind is Kind.ENV:
        update = control_pb2.UpdateAppRequest(request_id=change.request, app=change.target, options=options)
        update.environment.set[change.variable] = str(change.number)
        await connection.call(lambda stub: stub.UpdateApp, update, mutation=True)
    elif change.kind is Kind.SIZE:
        resize = control_pb2.SetSizeRequest(request_id=change.request, app=change.target, options=options)
        resize.change.relative = change.amount
        resize.allow_shrinking_others = True
        await connection.call(lambda stub: stub.SetSize, resize, mutation=True)
    else:
        label = control_pb2.LabelHostRequest(request_id=change.request, host=change.target)
        label.set[change.label] = str(change.number)
        await connection.call(lambda stub: stub.LabelHost, label, mutation=True)


def prepare(fleet: ManyControllers) -> None:
    """Stopped apps: what is changed of them takes effect in etcd alone, and at once."""
    for app in APPS:
        fleet.do("start", str(PLAIN_SERVER), "-n", app, "-i", str(FIRST_SIZE), "--no-wait")
        fleet.do("stop", app, "--now", "-y")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.changes")
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, ManyControllers(Path(folder)) as fleet:
        fleet.start()
        prepare(fleet)

        async def run() -> tuple[Run, list[str]]:
            made = Run(fleet)
            faults = plan_faults(arguments.seed, arguments.changes, arguments.faults)
            return made, await made.run(plan_changes(arguments.seed, arguments.changes), faults)

        made, broken = asyncio.run(run())
    summary = {"acknowledged": len(made.acknowledged), "asked": made.asked, "killed": made.kills, "broken": len(broken)}
    print(json.dumps(summary), flush=True)
    for what in broken:
        print(f"BROKEN: {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
