"""The agent's metrics: the workers of this host, whether or not a controller can be reached."""

from collections.abc import Iterator

from fleet.v1 import types_pb2
from fleet_agent.host import Host
from fleet_agent.probes import boot_time
from fleet_agent.supervisor_link import SupervisorLink
from fleet_agent.upkeep import UsageSampler
from fleet_core.exposition import Metric, counter, gauge, single

_FRESH_SECONDS = 1.0
_WORKER = ("app", "slot", "generation")


class AgentCollector:
    def __init__(self, host: Host, sampler: UsageSampler, link: SupervisorLink) -> None:
        self._host = host
        self._sampler = sampler
        self._link = link

    def collect(self) -> Iterator[Metric]:
        yield single("fleet_agent_session_up", "1 while a controller is connected.", self._host.in_session)
        yield single("fleet_agent_supervisor_up", "1 while fleet-supervisor is connected.", self._link.connected)
        if boot_time() - self._sampler.sampled_at > _FRESH_SECONDS:
            self._sampler.sample()
        yield from self._states()
        yield from self._usage()

    def _states(self) -> Iterator[Metric]:
        states = gauge("fleet_worker_state", "1 for the state a worker is in.", *_WORKER, "state")
        restarts = counter("fleet_worker_restarts", "Restarts since its generation began.", *_WORKER)
        for key, status in self._host.statuses.items():
            worker = [key.app, str(key.slot), str(key.generation)]
            name = types_pb2.WorkerState.Name(status.state).removeprefix("WORKER_STATE_").lower()
            states.add(1, *worker, name)
            restarts.add(status.restarts, *worker)
        yield from (states, restarts)

    def _usage(self) -> Iterator[Metric]:
        seconds = counter("fleet_worker_cpu_seconds", "Processor time of its process tree.", *_WORKER)
        memory = gauge("fleet_worker_resident_bytes", "Resident memory of its tree.", *_WORKER)
        files = gauge("fleet_worker_open_files", "Open descriptors of its tree.", *_WORKER)
        threads = gauge("fleet_worker_threads", "Threads of its tree.", *_WORKER)
        uptime = gauge("fleet_worker_uptime_seconds", "Since its process started.", *_WORKER)
        now = boot_time()
        for key, usage in self._sampler.latest.items():
            worker = [key.app, str(key.slot), str(key.generation)]
            seconds.add(usage.cpu_seconds, *worker)
            memory.add(usage.rss_bytes, *worker)
            files.add(usage.open_files, *worker)
            threads.add(usage.threads, *worker)
            record = self._host.workers.get(key)
            if record is not None and record.pid == usage.pid:
                uptime.add(max(0.0, now - record.started_monotonic), *worker)
        yield from (seconds, memory, files, threads, uptime)
