"""What a load sent and what failed. Pure: times are passed in, seconds of CLOCK_MONOTONIC."""

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

_MAX_DETAILS = 1000
_BUCKETS_PER_MILLISECOND = 10


class FailureKind(StrEnum):
    REFUSED = "refused"
    """No connection could be made."""
    RESET = "reset"
    """The connection ended after a request was sent and before its whole answer had come."""
    TIMEOUT = "timeout"
    STATUS = "status"
    """An answer other than 200."""
    BODY = "body"
    """An answer 200 that is not the right one."""


@dataclass(frozen=True, slots=True)
class Failure:
    kind: FailureKind
    method: str
    at: float
    """When it was noticed: CLOCK_MONOTONIC, so that it can be laid beside the workers' journals."""
    connection: str
    """ "keepalive", "idle" or "fresh"."""
    detail: str
    began: float
    """When the client began to ask, by the same clock: before it connected, if it had to."""
    target: str
    """The address it was connected to; the last one tried where none could be connected."""


@dataclass(slots=True)
class Tally:
    """Counts without growing with the number of requests: latencies are kept as a histogram of 0.1 ms."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    kinds: Counter[FailureKind] = field(default_factory=Counter)
    pids: Counter[int] = field(default_factory=Counter)
    """Process id, as told by the answers to GET → answers."""
    connections_opened: int = 0
    closed_while_idle: int = 0
    """Kept-alive connections the server closed between two requests, which HTTP allows."""
    failed_over: int = 0
    """Connections made to another target because the first one refused."""
    details: list[Failure] = field(default_factory=list)
    _latencies: Counter[int] = field(default_factory=Counter)

    def succeed(self, method: str, seconds: float) -> None:
        self.sent[method] += 1
        self._latencies[round(seconds * 1000 * _BUCKETS_PER_MILLISECOND)] += 1

    def fail(self, failure: Failure) -> None:
        """Count it; the first thousand are kept word for word."""
        self.sent[failure.method] += 1
        self.failed[failure.method] += 1
        self.kinds[failure.kind] += 1
        if len(self.details) < _MAX_DETAILS:
            self.details.append(failure)

    def latency_ms(self, share: float) -> float:
        """The latency that `share` (over 0, up to 1) of the answered requests did not exceed; 0 when none was answered."""
        rank = math.ceil(self._latencies.total() * share)
        for bucket in sorted(self._latencies):
            rank -= self._latencies[bucket]
            if rank <= 0:
                return bucket / _BUCKETS_PER_MILLISECOND
        return 0.0

    def summary(self, seconds: float) -> dict[str, Any]:
        sent = self.sent.total()
        return {
            "seconds": round(seconds, 3),
            "sent": sent,
            "failed": self.failed.total(),
            "sent_by_method": dict(self.sent),
            "failed_by_method": dict(self.failed),
            "failures": {str(kind): count for kind, count in self.kinds.items()},
            "requests_per_second": round(sent / seconds, 1) if seconds > 0 else 0.0,
            "latency_ms": {
                "p50": self.latency_ms(0.5),
                "p90": self.latency_ms(0.9),
                "p99": self.latency_ms(0.99),
                "max": self.latency_ms(1.0),
            },
            "connections_opened": self.connections_opened,
            "closed_while_idle": self.closed_while_idle,
            "failed_over": self.failed_over,
            "pids": {str(pid): count for pid, count in sorted(self.pids.items())},
            "details": [asdict(failure) for failure in self.details],
        }
