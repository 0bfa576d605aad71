import os
import socket

import pytest

from fleet_balancer.driver import DriverError, Target
from fleet_balancer.haproxy.listeners import Listeners, stored_name


def test_listeners_come_back_from_the_service_managers_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        address = Target(*chosen.getsockname())
    before, after = Listeners(), Listeners()
    before.bind(address)
    stray = os.open(os.devnull, os.O_RDONLY)
    stored = {stored_name(address): [os.dup(before.descriptor(address))], "stray": [stray]}
    before.close()
    after.take_stored(stored)
    try:
        assert after.addresses() == {address}
        with socket.create_connection((address.address, address.port), 1):
            pass
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(stray)
    finally:
        after.close()


def test_a_name_in_the_store_holds_no_colon() -> None:
    assert stored_name(Target("127.0.0.1", 8080)) == "listen-127.0.0.1-8080"
    assert ":" not in stored_name(Target("::1", 8080))


def test_an_address_this_host_does_not_have_is_one_clear_line() -> None:
    with pytest.raises(DriverError, match=r"cannot listen on 192\.0\.2\.1:8080: Cannot assign requested address"):
        Listeners().bind(Target("192.0.2.1", 8080))
