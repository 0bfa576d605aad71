"""The balancer's metrics, whether or not a controller can be reached."""

from collections.abc import Iterator

from fleet_balancer.access_log.log import AccessLog
from fleet_balancer.upstreams import Upstreams
from fleet_core.exposition import Metric, counter, gauge


class BalancerCollector:
    def __init__(self, upstreams: Upstreams, access_log: AccessLog) -> None:
        self._upstreams = upstreams
        self._access_log = access_log

    def collect(self) -> Iterator[Metric]:
        refused = gauge("fleet_balancer_refused", "1 while the newest list of the app is refused here.", "app")
        for app in sorted(self._upstreams.refused):
            refused.add(1, app)
        written = counter("fleet_balancer_access_log_lines", "Lines written to access logs.", "app")
        for app, lines in sorted(self._access_log.written.items()):
            written.add(lines, app)
        lost = counter(
            "fleet_balancer_access_log_lost", "Lines that access logs lack, by what was in the way.", "reason"
        )
        lost.add(self._access_log.dropped, "pipe_full")
        lost.add(self._access_log.lost_to_disk.total(), "disk")
        lost.add(self._access_log.unreadable, "unreadable")
        yield from (refused, written, lost)
