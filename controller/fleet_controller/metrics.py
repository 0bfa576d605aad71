"""The controller's metrics: the fleet as its leader sees it. A controller that does not lead says only that."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_controller.leadership import Leadership, Office
from fleet_controller.records import AppRecord, BalancerRecord, RolloutRecord, RolloutState, Scheduling
from fleet_controller.relocator import host_facts


class FleetCollector(Collector):
    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership

    def collect(self) -> Iterator[Metric]:
        office = self._leadership.office
        leads = office is not None and office.open.is_set()
        yield GaugeMetricFamily("fleet_controller_leads", "1 on the controller that leads.", value=leads)
        if office is not None and leads:
            yield from _etcd(office)
            yield from _apps(office)
            yield from _hosts(office)
            yield from _balancers(office)


def _etcd(office: Office) -> Iterator[Metric]:
    held = office.term.provable()
    yield GaugeMetricFamily("fleet_etcd_lease_provable", "1 while the leader's lease is certainly held.", value=held)
    revision = office.desired.revision
    yield GaugeMetricFamily("fleet_etcd_revision", "Revision of desired state in the leader's memory.", value=revision)


def _apps(office: Office) -> Iterator[Metric]:
    wanted = GaugeMetricFamily("fleet_app_size", "Workers an app shall have.", labels=["app"])
    ready = GaugeMetricFamily("fleet_app_ready", "Ready workers of an app.", labels=["app"])
    states = GaugeMetricFamily("fleet_app_workers", "Workers of an app by state.", labels=["app", "state"])
    restarts = CounterMetricFamily("fleet_app_restarts", "Restarts of an app's present workers.", labels=["app"])
    memory = GaugeMetricFamily("fleet_app_resident_bytes", "Resident memory of an app's workers.", labels=["app"])
    rollouts = GaugeMetricFamily(
        "fleet_app_rollout_running", "1 while a rollout of the app is under way.", labels=["app"]
    )
    running = {record.app for record in office.desired.all(RolloutRecord) if record.state is RolloutState.RUNNING}
    for app in office.desired.all(AppRecord):
        workers = [
            worker for host in office.hosts for identity, worker in host.workers.items() if identity.app == app.name
        ]
        wanted.add_metric([app.name], app.wanted_total)
        ready.add_metric([app.name], sum(worker.view.ready for worker in workers))
        for life, count in Counter(worker.view.life for worker in workers).items():
            states.add_metric([app.name, life.value], count)
        restarts.add_metric([app.name], sum(worker.view.restarts for worker in workers))
        memory.add_metric([app.name], sum(worker.rss_bytes for worker in workers))
        rollouts.add_metric([app.name], app.name in running)
    yield from (wanted, ready, states, restarts, memory, rollouts)


def _hosts(office: Office) -> Iterator[Metric]:
    online = GaugeMetricFamily("fleet_host_online", "1 while the host's agent is connected.", labels=["host"])
    lost = GaugeMetricFamily(
        "fleet_host_lost_seconds", "For how long the leader has not heard of the host; 0: it has.", labels=["host"]
    )
    open_to = GaugeMetricFamily("fleet_host_open", "1 while the host takes new workers.", labels=["host"])
    for fact in host_facts(office.desired, office.hosts).values():
        online.add_metric([fact.name], fact.online)
        lost.add_metric([fact.name], 0.0 if fact.lost_since is None else office.clock() - fact.lost_since)
        open_to.add_metric([fact.name], fact.scheduling is Scheduling.OPEN)
    yield from (online, lost, open_to)
    yield GaugeMetricFamily(
        "fleet_refill_braked",
        "1 while too many hosts are lost at the same time for their workers to be started elsewhere.",
        value=bool(office.relocator.last.brake),
    )


def _balancers(office: Office) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "fleet_balancer_connected", "1 while the balancer is subscribed.", labels=["balancer"]
    )
    behind = GaugeMetricFamily(
        "fleet_balancer_pools_behind", "Pools whose newest list it has not acknowledged.", labels=["balancer"]
    )
    for record in office.desired.all(BalancerRecord):
        balancer = office.upstreams.balancers.get(record.name)
        connected.add_metric([record.name], balancer is not None and balancer.outbox is not None)
        current = balancer.current(office.upstreams.lists) if balancer is not None else 0
        behind.add_metric([record.name], len(office.upstreams.lists) - current)
    yield from (connected, behind)
