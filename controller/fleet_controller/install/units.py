"""The service of a host with a controller. Pure."""

from dataclasses import dataclass
from pathlib import Path

from fleet_core.install.units import ALONE, FOR_EVER, Unit, command, daemon

CONTROLLER = "fleet-controller"


@dataclass(frozen=True, slots=True)
class Place:
    controller: Path
    config: Path
    user: str
    state_dir: Path


def unit(place: Place) -> Unit:
    return Unit(
        CONTROLLER,
        unit=(
            ("Description", "fleetctl: drives the hosts of the fleet to what is wanted"),
            ("Wants", "network-online.target"),
            # An etcd on this host, where there is one, is best stopped after us.
            ("After", "network-online.target fleet-etcd.service etcd.service"),
            FOR_EVER,
        ),
        service=(
            *daemon(restart_seconds="1s", watchdog_seconds=60),
            ("User", place.user),
            ("ExecStart", command(place.controller, "run", "--config", place.config)),
            ("LimitNOFILE", "65536"),
            ("CapabilityBoundingSet", ""),
            *ALONE,
            ("ReadWritePaths", command(place.state_dir)),
        ),
    )
