"""What cannot be done is refused in one clear line, with the right exit code, and changes nothing."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.harness import PLAIN_SERVER, Fleet, Result, wait_for
from tests.ports import free_address

_USAGE, _NOT_FOUND, _REFUSED = 2, 4, 5

_BAD: list[tuple[tuple[str, ...], int, str]] = [
    (("set-size", "no-such-app", "3"), _NOT_FOUND, "no-such-app"),
    (("soft-restart", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("restart", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("stop", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("remove", "no-such-app", "-y"), _NOT_FOUND, "no-such-app"),
    (("status", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("ps", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("logs", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("start", "no-such-app"), _NOT_FOUND, "no-such-app"),
    (("start", "./no-such-script.js", "-n", "another"), _NOT_FOUND, "no-such-script.js"),
    (("start", str(PLAIN_SERVER), "-n", "another", "--host", "no-such-host"), _NOT_FOUND, "no-such-host"),
    (("set-size", "my-app", "3", "--host", "no-such-host"), _NOT_FOUND, "no-such-host"),
    (("soft-restart", "my-app", "--ignore-balancer", "no-such-balancer"), _NOT_FOUND, "no-such-balancer"),
    (("set-size", "my-app", "abc"), _USAGE, "abc"),
    (("set-size", "my-app", "-1"), _USAGE, "-1"),
    (("set-size", "my-app", "1.5"), _USAGE, "1.5"),
    (("start", str(PLAIN_SERVER), "-n", "another", "-i", "abc"), _USAGE, "abc"),
    (("start", str(PLAIN_SERVER), "-n", "another", "-i", "-1"), _USAGE, "-1"),
    (("start", str(PLAIN_SERVER), "-n", "Not A Name"), _USAGE, "Not A Name"),
    (("start", str(PLAIN_SERVER), "-n", "another", "--http", "127.0.0.1:port"), _USAGE, "127.0.0.1:port"),
    (("no-such-command",), _USAGE, "no-such-command"),
]
_IDS = [" ".join(arguments).replace(str(PLAIN_SERVER), "SCRIPT") for arguments, _, _ in _BAD]


@pytest.fixture(scope="module")
def address(fleet: Fleet) -> str:
    return fleet.start_app(PLAIN_SERVER, 3)


@pytest.fixture
def unchanged(fleet: Fleet, address: str) -> Iterator[None]:
    """`ls` and the workers are after the test what they were before it."""
    before = fleet.ask("ls"), fleet.pids()
    yield
    assert (fleet.ask("ls"), fleet.pids()) == before


def _assert_refused(result: Result, code: int, *words: str) -> None:
    everything = result.output + result.errors
    assert result.code == code, everything
    assert "Traceback" not in everything
    assert len(result.error_lines) == 1, everything
    assert result.error_lines[0].startswith("fleetctl: ")
    for word in words:
        assert word in result.errors


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    _BAD,
    ids=_IDS,
)
def test_bad_input_is_refused_in_one_line(fleet: Fleet, arguments: tuple[str, ...], code: int, word: str) -> None:
    """Guards invariant 10."""
    _assert_refused(fleet.run(*arguments, seconds=30), code, word)


@pytest.mark.usefixtures("unchanged")
def test_a_balancer_port_in_use_by_a_stranger_is_refused(fleet: Fleet) -> None:
    """Guards invariant 10."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = f"127.0.0.1:{stranger.getsockname()[1]}"
        result = fleet.run("start", str(PLAIN_SERVER), "-n", "another", "--http", taken, seconds=60)

    _assert_refused(result, _REFUSED, taken.partition(":")[2])


@pytest.mark.usefixtures("unchanged")
def test_two_apps_on_one_balancer_port_are_refused(fleet: Fleet, address: str) -> None:
    """Guards invariant 10."""
    result = fleet.run("start", str(PLAIN_SERVER), "-n", "another", "--http", address, seconds=30)

    _assert_refused(result, _REFUSED, address.partition(":")[2], "my-app")


@pytest.mark.usefixtures("unchanged")
def test_an_app_that_exists_is_not_created_again(fleet: Fleet) -> None:
    """Guards invariant 10."""
    result = fleet.run("start", str(PLAIN_SERVER), "-n", "my-app", "--http", free_address(), seconds=30)

    _assert_refused(result, _REFUSED, "my-app")


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    "arguments", [("set-size", "my-app", "4"), ("soft-restart", "my-app"), ("stop", "my-app")], ids=lambda a: a[0]
)
def test_with_etcd_away_changes_are_refused_within_seconds(fleet: Fleet, arguments: tuple[str, ...]) -> None:
    """Guards invariant 10. etcd is frozen, not ended: `up` would start it again, and what it was sent waits for it to thaw."""
    before = fleet.ask("ls"), fleet.pids()
    _, etcd = fleet.daemon("etcd")
    began = time.monotonic()
    os.kill(etcd, signal.SIGSTOP)
    try:
        result = fleet.run(*arguments, seconds=30)
        seconds = time.monotonic() - began
    finally:
        os.kill(etcd, signal.SIGCONT)

    _assert_refused(result, _REFUSED, "etcd")
    assert seconds < 10
    # A change carried out late would stay, and be seen here; a new election may take a moment.
    fleet.etcd_revision()
    wait_for(lambda: fleet.run("ls").code == 0 and len(fleet.pids()) == 3, "the controller answers again")
    assert (fleet.ask("ls"), fleet.pids()) == before


def test_without_a_fleet_every_command_says_how_to_start_one(tmp_path: Path) -> None:
    """Guards invariant 10."""
    with Fleet(tmp_path / "none") as nothing:
        result = nothing.run("ls", seconds=30)

    assert result.code in (2, 3), result
    assert len(result.error_lines) == 1
    assert "fleetctl up" in result.errors
    assert "Traceback" not in result.errors
