"""Hosts that are about to stop their workers: what balancers shall do with those, and when they rest. Pure."""

from collections.abc import Collection, Iterable, Mapping

from fleet_controller.planning.views import BalancerView, EndpointState
from fleet_core.ids import WorkerId


def without_departing(
    endpoints: Mapping[WorkerId, EndpointState], leaving: Collection[str]
) -> dict[WorkerId, EndpointState]:
    """The list with every endpoint on a host that leaves draining."""
    return {worker: EndpointState.DRAINING if worker.host in leaving else state for worker, state in endpoints.items()}


def drained(workers: Iterable[WorkerId], balancers: Collection[BalancerView]) -> bool:
    """Every registered balancer stopped choosing them, and has no request at them. One that is absent may have."""
    return all(
        balancer.stopped_choosing(worker) and balancer.has_no_request(worker)
        for worker in workers
        for balancer in balancers
    )
