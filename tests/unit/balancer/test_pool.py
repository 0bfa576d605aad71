"""Lists from the wire."""

from collections.abc import Iterable

import pytest

from fleet.v1 import balancer_pb2
from fleet_balancer.driver import Parsed, Pool
from fleet_core.ids import WorkerId

_READY, _DRAINING = "ENDPOINT_STATE_READY", "ENDPOINT_STATE_DRAINING"


def _pool(route: str, endpoints: Iterable[tuple[int, int, str]], health_path: str = "") -> balancer_pb2.Pool:
    message = balancer_pb2.Pool(name="web", health_path=health_path)
    message.route.http = route
    for slot, port, state in endpoints:
        worker = WorkerId("web", "host1", slot, 1).to_proto()
        message.endpoints.add(worker=worker, address="127.0.0.1", port=port, state=state)
    return message


_LISTS = [
    _pool("127.0.0.1:80", [(1, 1001, _READY), (2, 1002, _READY)]),
    _pool("127.0.0.1:80", [(1, 1001, _READY)]),
    _pool("127.0.0.1:80", [(2, 1001, _READY), (1, 1002, _READY)]),
    _pool("127.0.0.1:80", [(1, 1001, _DRAINING), (2, 1002, _READY)]),
    _pool("127.0.0.1:81", [(1, 1001, _READY), (2, 1002, _READY)]),
    _pool("127.0.0.1:80", [(1, 1001, _READY)], "/healthz"),
    _pool("127.0.0.1:80", []),
]


@pytest.mark.parametrize("before", _LISTS)
@pytest.mark.parametrize("message", _LISTS)
def test_a_list_says_the_same_whatever_was_read_before_it(
    before: balancer_pb2.Pool, message: balancer_pb2.Pool
) -> None:
    """Guards invariant 7: nothing of a list before stays that this one does not say."""
    known = Parsed(before, Pool.from_proto(before))
    assert Pool.from_proto(message, before=known) == Pool.from_proto(message)


def test_what_cannot_be_right_is_refused_also_after_a_list_that_was() -> None:
    before = _LISTS[0]
    known = Parsed(before, Pool.from_proto(before))
    with pytest.raises(ValueError, match="port 0 of web/host1/2@1"):
        Pool.from_proto(_pool("127.0.0.1:80", [(1, 1001, _READY), (2, 0, _READY)]), before=known)
    with pytest.raises(ValueError, match="not valid"):
        Pool.from_proto(_pool("nowhere", [(1, 1001, _READY)]), before=known)
