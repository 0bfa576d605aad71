"""The services of a host with a balancer. Pure.

    fleet-haproxy   stands for the HAProxy processes: nothing runs in it, but stopping it ends them, connections first
    fleet-balancer  starts them, feeds them, and may be restarted or killed at will: they serve on

HAProxy inherits its listening sockets from fleet-balancer, so fleet-balancer must start it: docs/adr/0014-services-of-systemd.md.
"""

from dataclasses import dataclass
from pathlib import Path

from fleet_core.install.units import ALONE, FOR_EVER, Unit, command, daemon

HAPROXY, BALANCER = "fleet-haproxy", "fleet-balancer"
_KEPT_LISTENERS = 1024
_GRACE_SECONDS = 20
_LOW_PORTS = "CAP_NET_BIND_SERVICE"


@dataclass(frozen=True, slots=True)
class Place:
    balancer: Path
    config: Path
    user: str
    writes_to: tuple[Path, ...]
    runtime_dir: Path


def units(place: Place) -> list[Unit]:
    """In the order of their start."""
    runtime = (
        ("RuntimeDirectory", str(place.runtime_dir.relative_to("/run"))),
        ("RuntimeDirectoryMode", "0700"),
        ("RuntimeDirectoryPreserve", "yes"),
    )
    stop = (place.balancer, "stop", "--grace", str(_GRACE_SECONDS), "--config", place.config)
    haproxy = Unit(
        HAPROXY,
        unit=(
            ("Description", "fleetctl: the HAProxy of this host"),
            ("Wants", "network-online.target"),
            ("After", "network-online.target"),
        ),
        service=(
            ("Type", "oneshot"),
            ("RemainAfterExit", "yes"),
            ("User", place.user),
            ("ExecStart", command("/bin/true")),
            ("ExecStop", command(*stop)),
            ("TimeoutStopSec", f"{_GRACE_SECONDS + 30}s"),
            *runtime,
        ),
    )
    balancer = Unit(
        BALANCER,
        unit=(
            ("Description", "fleetctl: keeps the HAProxy of this host equal to the controller's lists"),
            ("Requires", f"{HAPROXY}.service"),
            ("After", f"{HAPROXY}.service network-online.target"),
            FOR_EVER,
        ),
        service=(
            *daemon(restart_seconds="500ms", watchdog_seconds=60, kept_descriptors=_KEPT_LISTENERS),
            ("User", place.user),
            ("ExecStart", command(place.balancer, "run", "--config", place.config)),
            ("AmbientCapabilities", _LOW_PORTS),
            ("CapabilityBoundingSet", _LOW_PORTS),
            ("LimitNOFILE", "65536"),
            *ALONE,
            ("ReadWritePaths", command(*place.writes_to)),
            *runtime,
        ),
    )
    return [haproxy, balancer]
