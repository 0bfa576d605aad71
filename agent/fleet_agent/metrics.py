"""The agent's metrics: the workers of this host, whether or not a controller can be reached."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet.v1 import types_pb2
from fleet_agent.host import Host
from fleet_agent.probes import boot_time
from fleet_agent.supervisor_link import SupervisorLink
from fleet_agent.upkeep import UsageSampler

_FRESH_SECONDS = 1.0
_WORKER = ("app", "slot", "generation")


class AgentCollector(Collector):
    def __init__(self, host: Host, sampler: UsageSampler, link: SupervisorLink) -> None:
        self._host = host
        self._sampler = sampler
        self._link = link

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "fleet_agent_session_up", "1 while a controller is connected.", value=self._host.in_session
        )
        yield GaugeMetricFamily(
            "fleet_agent_supervisor_up", "1 while fleet-supervisor is connected.", value=self._link.connected
        )
        if boot_time() - self._sampler.sampled_at > _FRESH_SECONDS:
            self._sampler.sample()
        yield from self._states()
        yield from self._usage()

    def _states(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("fleet_worker_state", "1 for the state a worker is in.", labels=[*_WORKER, "state"])
        restarts = CounterMetricFamily("fleet_worker_restarts", "Restarts since its generation began.", labels=_WORKER)
        for key, status in self._host.statuses.items():
            worker = [key.app, str(key.slot), str(key.generation)]
            name = types_pb2.WorkerState.Name(status.state).removeprefix("WORKER_STATE_").lower()
            states.add_metric([*worker, name], 1)
            restarts.add_metric(worker, status.restarts)
        yield from (states, restarts)

    def _usage(self) -> Iterator[Metric]:
        seconds = CounterMetricFamily("fleet_worker_cpu_seconds", "Processor time of its process tree.", labels=_WORKER)
        memory = GaugeMetricFamily("fleet_worker_resident_bytes", "Resident memory of its tree.", labels=_WORKER)
        files = GaugeMetricFamily("fleet_worker_open_files", "Open descriptors of its tree.", labels=_WORKER)
        threads = GaugeMetricFamily("fleet_worker_threads", "Threads of its tree.", labels=_WORKER)
        uptime = GaugeMetricFamily("fleet_worker_uptime_seconds", "Since its process started.", labels=_WORKER)
        now = boot_time()
        for key, usage in self._sampler.latest.items():
            worker = [key.app, str(key.slot), str(key.generation)]
            seconds.add_metric(worker, usage.cpu_seconds)
            memory.add_metric(worker, usage.rss_bytes)
            files.add_metric(worker, usage.open_files)
            threads.add_metric(worker, usage.threads)
            record = self._host.workers.get(key)
            if record is not None and record.pid == usage.pid:
                uptime.add_metric(worker, max(0.0, now - record.started_monotonic))
        yield from (seconds, memory, files, threads, uptime)
