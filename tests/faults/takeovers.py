"""`make faults-takeover RUNS=20 SEED=1`: kill -9 of the leading one of three controllers, which is not started again meanwhile.

For each death: seconds until a change is accepted, until every host was sent an assignment by the next leader, and until every
balancer had its lists. No worker may change, and no takeover may take five seconds. After every fifth, a leader is told to end
(SIGTERM) and hands over; and one dies together with the leading member of etcd, as where they share a machine: then etcd must
choose first, and gives the lease its whole length again, so that this is measured and not judged. Exit codes: 0 kept, 1 broken.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from fleet.v1 import control_pb2
from fleetctl.connection import Connection
from fleetctl.errors import FleetError
from tests.faults.many_controllers import ManyControllers
from tests.integration.fleet.harness import PLAIN_SERVER, wait_for

LIMIT_SECONDS = 5.0
SIZE = 3
_DEADLINE_SECONDS = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class End:
    """How the leader ends, and so many seconds after the fleet was whole again."""

    number: signal.Signals
    after: float
    with_etcd: bool = False
    """The leading member of etcd ends with it."""

    @property
    def name(self) -> str:
        return "machine" if self.with_etcd else self.number.name


@dataclass(frozen=True, slots=True)
class Takeover:
    """Seconds from the leader's end."""

    change: float
    """Until the first change was accepted."""
    assignments: float
    """Until every host held an assignment of the next leader's."""
    lists: float
    """Until every balancer had applied the next leader's lists."""

    @property
    def seconds(self) -> float:
        return max(self.change, self.assignments, self.lists)


def schedule(seed: int, runs: int, *, others_every: int = 5) -> list[End]:
    """`runs` kills, and other ends between them. Pure, and the same for the same seed; the lease is at another age each time."""
    dice = Random(seed)
    ends = []
    for run in range(1, runs + 1):
        ends.append(End(signal.SIGKILL, dice.uniform(0.0, 1.5)))
        if run % others_every == 0:
            ends.append(End(signal.SIGTERM, dice.uniform(0.0, 1.5)))
            ends.append(End(signal.SIGKILL, dice.uniform(0.0, 1.5), with_etcd=True))
    return ends


def end_leader(fleet: ManyControllers, end: End) -> Takeover:
    """End the leader once, and measure; afterwards every controller is up again."""
    before = fleet.pids()
    leader = fleet.leader()
    daemons = fleet.daemons()
    ending = [leader, *([asyncio.run(fleet.etcd_leader())] if end.with_etcd else [])]
    term = max(fleet.obeyed().values())
    time.sleep(end.after)
    with fleet.manager_away():
        for name in ending:
            os.kill(daemons[name], end.number)
        takeover = asyncio.run(_watch_takeover(fleet, term))
        others = {name for name, each in fleet.controllers().items() if each["leads"]}
    assert others, "nobody leads after a takeover"
    assert leader not in others, f"{leader} leads again"
    fleet.wait_for_all_controllers()
    wait_for(lambda: fleet.pids() == before, "the workers as they were")
    return takeover


async def _watch_takeover(fleet: ManyControllers, term: int) -> Takeover:
    clock = asyncio.get_running_loop().time
    began = clock()
    async with fleet.connection() as connection, asyncio.timeout(_DEADLINE_SECONDS), asyncio.TaskGroup() as group:
        change = group.create_task(_changed(connection))
        assignments = group.create_task(_assigned(fleet, term))
        lists = group.create_task(_listed(connection))
        times: dict[str, float] = {}
        for name, task in (("change", change), ("assignments", assignments), ("lists", lists)):
            task.add_done_callback(lambda _, name=name: times.setdefault(name, clock() - began))  # type: ignore[misc]
    return Takeover(**{name: round(seconds, 3) for name, seconds in times.items()})


async def _changed(connection: Connection) -> None:
    """One change with one request id, however often it must be asked for."""
    request = control_pb2.LabelHostRequest(request_id=str(uuid.uuid4()), host="host1", set={"at": uuid.uuid4().hex[:8]})
    while True:
        try:
            await connection.call(lambda stub: stub.LabelHost, request, mutation=True)
        except FleetError:
            continue
        return


async def _assigned(fleet: ManyControllers, term: int) -> None:
    while min(epoch for epoch, _ in fleet.assignments().values()) <= term:  # noqa: ASYNC110 (files bring no event)
        await asyncio.sleep(_POLL_SECONDS)


async def _listed(connection: Connection) -> None:
    """A balancer that is connected to the next leader, and acknowledged its newest list of every pool."""
    while True:
        try:
            answer = await connection.call(lambda stub: stub.ListBalancers, control_pb2.ListBalancersRequest())
        except FleetError:
            continue
        if all(each.pools and each.pools_current == each.pools for each in answer.balancers):
            return
        await asyncio.sleep(_POLL_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.takeovers")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, ManyControllers(Path(folder)) as fleet:
        fleet.start()
        fleet.start_app(PLAIN_SERVER, SIZE)
        for number, end in enumerate(schedule(arguments.seed, arguments.runs), 1):
            takeover = end_leader(fleet, end)
            seconds.setdefault(end.name, []).append(takeover.seconds)
            print(json.dumps({"end": number, "how": end.name, **asdict(takeover)}), flush=True)
    for name, found in seconds.items():
        spread = {"min": min(found), "median": statistics.median(found), "max": max(found)}
        print(json.dumps({"how": name, "takeovers": len(found), **spread}))
    late = sum(each >= LIMIT_SECONDS for name, found in seconds.items() if name != "machine" for each in found)
    if late:
        print(f"BROKEN: {late} takeovers took {LIMIT_SECONDS:g} s or more")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
