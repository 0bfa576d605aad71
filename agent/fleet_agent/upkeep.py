"""What the agent does by the clock: samples usage, demands replacements, and looks again at what nobody tells of.

Idle hosts should cost nothing, and a sample costs more than all else there, so it is taken rarely: often only near a memory
limit, while a replacement is awaited, while somebody looks, or just after processes changed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from fleet_agent.cron import CronClock, cron_times
from fleet_agent.host import Host
from fleet_agent.probes import boot_time
from fleet_agent.process_tree import Usage, UsageMeter
from fleet_agent.replacements import Excess, Slot, demands, excesses, failures, in_vain, near_a_limit, replaceable
from fleet_agent.supervisor.protocol import Key

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 30.0
_LIMITED_SECONDS = 10.0
"""Where a worker has a memory limit."""
_BUSY_SECONDS = 2.0
_SETTLING_SECONDS = 1.0
"""Between a change of processes and the sample that shows the new ones."""

Fail = Callable[[Key, int, str], None]
"""(worker, process, reason): ask the supervisor to end it and treat that as a crash."""


class UsageSampler:
    """The newest usage of each worker of `host`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._meter = UsageMeter()
        self._troubled = False
        self.latest: Mapping[Key, Usage] = {}
        self.number = 0
        """Grows with each sample."""
        self.sampled = asyncio.Event()
        """Set by each sample, for the session to clear."""
        self.sampled_at = 0.0

    def sample(self) -> None:
        now = boot_time()
        workers = [worker for worker in self._host.workers.values() if worker.pid]
        try:
            usage = self._meter.measure({worker.pid: worker.started_monotonic for worker in workers}, now)
        except OSError as error:
            if not self._troubled:
                _LOG.warning("usage cannot be measured: %s", error)
            self._troubled = True
            usage = {}
        else:
            self._troubled = False
        self.latest = {worker.key: usage[worker.pid] for worker in workers if worker.pid in usage}
        self.sampled_at = now
        self.number += 1
        self.sampled.set()


class Upkeep:
    """Runs beside the session, with or without one."""

    def __init__(self, host: Host, sampler: UsageSampler, fail: Fail) -> None:
        self._host = host
        self._sampler = sampler
        self._fail = fail
        self._cron = CronClock()
        self._excesses: Mapping[Slot, Excess] = {}

    async def run(self) -> None:
        """Until cancelled."""
        await self._host.supervisor_known.wait()
        while True:
            self._host.look_due.clear()
            self._host.look_again()
            self._sampler.sample()
            pause = self._decide()
            try:
                async with asyncio.timeout(pause):
                    await self._host.look_due.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_SETTLING_SECONDS)

    def _decide(self) -> float:
        """Demand, or do, what the sample asks for; returns the seconds until the next look."""
        workers = replaceable(self._host.workers.values(), self._host.running_specs())
        wall, now = time.time(), boot_time()
        times = {spec.cron_restart: cron_times(spec.cron_restart, wall) for _, spec in workers if spec.cron_restart}
        self._cron.read(wall, now)
        due = {expression: self._cron.since_boot(last) for expression, (last, _) in times.items()}
        usage = self._sampler.latest
        self._excesses = excesses(workers, usage, self._excesses, now)
        self._host.demand(demands(workers, usage, due, self._excesses))
        running = {(worker.key.app, worker.key.slot) for worker, _ in workers}
        lasting = {slot: excess for slot, excess in self._excesses.items() if slot in running}
        self._host.in_vain = in_vain(lasting, self._host.context.name)
        for key, failure in failures(workers, usage, self._host.away_seconds(now)).items():
            self._fail(key, failure.pid, f"{failure.reason}, and no controller to ask")
        pause = _IDLE_SECONDS
        if (
            self._host.hindered
            or self._host.demands
            or now < self._host.usage_watched_until
            or near_a_limit(workers, usage)
        ):
            pause = _BUSY_SECONDS
        elif any(spec.limits.memory_restart_bytes for _, spec in workers):
            pause = _LIMITED_SECONDS
        return max(_SETTLING_SECONDS, min([pause, *(following - wall for _, following in times.values())]))
