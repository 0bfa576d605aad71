"""The controller's metrics: the fleet as its leader sees it. A controller that does not lead says only that."""

from collections import Counter
from collections.abc import Iterator

from fleet_controller.leadership import Leadership, Office
from fleet_controller.records import AppRecord, BalancerRecord, RolloutRecord, RolloutState, Scheduling
from fleet_controller.relocator import host_facts
from fleet_core.exposition import Metric, gauge, single


class FleetCollector:
    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership

    def collect(self) -> Iterator[Metric]:
        office = self._leadership.office
        leads = office is not None and office.open.is_set()
        yield single("fleet_controller_leads", "1 on the controller that leads.", leads)
        if office is not None and leads:
            yield from _etcd(office)
            yield from _apps(office)
            yield from _hosts(office)
            yield from _balancers(office)


def _etcd(office: Office) -> Iterator[Metric]:
    yield single(
        "fleet_etcd_older",
        "1 while etcd is not what the fleet obeyed last, and nothing is acted on.",
        bool(office.lineage.trouble),
    )
    yield single("fleet_era", "The first half of the leader's epoch, raised by each restore.", office.epoch.era)
    held = office.term.provable()
    yield single("fleet_etcd_lease_provable", "1 while the leader's lease is certainly held.", held)
    revision = office.desired.revision
    yield single("fleet_etcd_revision", "Revision of desired state in the leader's memory.", revision)


def _apps(office: Office) -> Iterator[Metric]:
    wanted = gauge("fleet_app_size", "Workers an app shall have.", "app")
    ready = gauge("fleet_app_ready", "Ready workers of an app.", "app")
    states = gauge("fleet_app_workers", "Workers of an app by state.", "app", "state")
    # No counter: a worker that is replaced takes its restarts along.
    restarts = gauge("fleet_app_restarts", "Restarts of an app's present workers.", "app")
    memory = gauge("fleet_app_resident_bytes", "Resident memory of an app's workers.", "app")
    rollouts = gauge("fleet_app_rollout_running", "1 while a rollout of the app is under way.", "app")
    running = {record.app for record in office.desired.all(RolloutRecord) if record.state is RolloutState.RUNNING}
    for app in office.desired.all(AppRecord):
        workers = [
            worker for host in office.hosts for identity, worker in host.workers.items() if identity.app == app.name
        ]
        wanted.add(app.wanted_total, app.name)
        ready.add(sum(worker.view.ready for worker in workers), app.name)
        for life, count in Counter(worker.view.life for worker in workers).items():
            states.add(count, app.name, life.value)
        restarts.add(sum(worker.view.restarts for worker in workers), app.name)
        memory.add(sum(worker.rss_bytes for worker in workers), app.name)
        rollouts.add(app.name in running, app.name)
    yield from (wanted, ready, states, restarts, memory, rollouts)


def _hosts(office: Office) -> Iterator[Metric]:
    online = gauge("fleet_host_online", "1 while the host's agent is connected.", "host")
    lost = gauge("fleet_host_lost_seconds", "For how long the leader has not heard of the host; 0: it has.", "host")
    open_to = gauge("fleet_host_open", "1 while the host takes new workers.", "host")
    for fact in host_facts(office.desired, office.hosts).values():
        online.add(fact.online, fact.name)
        lost.add(0.0 if fact.lost_since is None else office.clock() - fact.lost_since, fact.name)
        open_to.add(fact.scheduling is Scheduling.OPEN, fact.name)
    yield from (online, lost, open_to)
    yield single(
        "fleet_refill_braked",
        "1 while too many hosts are lost at the same time for their workers to be started elsewhere.",
        bool(office.relocator.last.brake),
    )


def _balancers(office: Office) -> Iterator[Metric]:
    connected = gauge("fleet_balancer_connected", "1 while the balancer is subscribed.", "balancer")
    behind = gauge("fleet_balancer_pools_behind", "Pools whose newest list it has not acknowledged.", "balancer")
    for record in office.desired.all(BalancerRecord):
        balancer = office.upstreams.balancers.get(record.name)
        connected.add(balancer is not None and balancer.outbox is not None, record.name)
        current = balancer.current(office.upstreams.lists) if balancer is not None else 0
        behind.add(len(office.upstreams.lists) - current, record.name)
    yield from (connected, behind)
