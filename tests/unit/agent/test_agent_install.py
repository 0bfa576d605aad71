"""The services of a host with workers, as text."""

import configparser
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.install.cgroup import cgroup2_mount
from fleet_agent.install.units import Place, units
from fleet_agent.install.upstart import jobs
from fleet_agent.main import main

PLACE = Place(
    supervisor=Path("/opt/fleet/bin/fleet-supervisor"),
    agent=Path("/opt/fleet/bin/fleet-agent"),
    config=Path("/etc/fleet/agent.toml"),
    runtime_dir=Path("/run/fleet"),
    log_dir=Path("/var/log/fleet"),
    cgroup=Path("/sys/fs/cgroup/system.slice/fleet-workers.service"),
)


def parsed(name: str, place: Place = PLACE) -> configparser.ConfigParser:
    """Of a setting given twice the last; enough here."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    (unit,) = [unit for unit in units(place) if unit.name == name]
    parser.read_string(unit.render())
    return parser


def test_hybrid_unified_and_old_machines_have_their_version_2_tree_in_different_places() -> None:
    old = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    assert cgroup2_mount(old) is None
    assert cgroup2_mount(old + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n") == Path("/sys/fs/cgroup/unified")
    assert cgroup2_mount("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n") == Path("/sys/fs/cgroup")


def test_the_supervisor_may_be_restarted_for_ever_and_keeps_its_descriptors() -> None:
    unit = parsed("fleet-supervisor")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    service = unit["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "process", "always")
    assert int(service["FileDescriptorStoreMax"]) >= 1000
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert service["ExecStart"].endswith(f"--cgroup {PLACE.cgroup}")
    assert "Delegate" not in service


def test_only_the_service_that_is_never_restarted_delegates() -> None:
    assert [unit.name for unit in units(PLACE) if ("Delegate", "yes") in unit.service] == ["fleet-workers"]


def test_the_drain_is_the_last_to_start_and_so_the_first_to_stop() -> None:
    unit = next(unit for unit in units(PLACE) if unit.name == "fleet-drain")
    after = " ".join(value for name, value in unit.unit if name == "After")
    for name in ("fleet-workers", "fleet-supervisor", "fleet-agent", "network-online"):
        assert name in after


def test_without_cgroups_of_version_2_the_supervisor_gets_none() -> None:
    place = replace(PLACE, cgroup=None)
    assert "--cgroup" not in parsed("fleet-supervisor", place)["Service"]["ExecStart"]
    assert parsed("fleet-workers", place)["Service"]["ExecStart"] == "/bin/true"


def test_upstart_gets_a_job_for_each_of_the_two() -> None:
    written = jobs(PLACE, Path("/etc/init/fleet-agent.conf"))
    agent = written[Path("/etc/init/fleet-agent.conf")]
    supervisor = written[Path("/etc/init/fleet-supervisor.conf")]
    assert "start on started fleet-supervisor\n" in agent
    assert "respawn\nrespawn limit unlimited\n" in agent
    assert "pre-stop exec /opt/fleet/bin/fleet-supervisor stop --runtime-dir /run/fleet\n" in supervisor


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--systemd"], "--controllers ADDR[,ADDR] is missing"),
        (["--systemd", "--controllers", "127.0.0.1:7400"], "--cert DIR is missing: `fleetctl cert issue agent NAME`"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--dry-run", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
