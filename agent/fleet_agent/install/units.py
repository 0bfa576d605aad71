"""The services of a host with workers. Pure.

    fleet-workers      owns the cgroups of the workers, and nothing else; it is stopped last
    fleet-supervisor   in front of it, restarted at will: its workers live in fleet-workers' cgroup
    fleet-agent        after the supervisor
    fleet-drain        last up and first down: stopping it takes this host's workers out of the balancers and stops them

So a shutdown begins with the drain while agent, supervisor and network are there to do it, and a restart of supervisor or agent
touches neither fleet-workers nor fleet-drain. Three of them are bound to fleet-workers, so that stopping or restarting that one
stops or restarts all, in this order. See docs/adr/0014-services-of-systemd.md.
"""

from dataclasses import dataclass
from pathlib import Path

from fleet_core.install.units import FOR_EVER, Setting, Unit, command, daemon

WORKERS, SUPERVISOR, AGENT, DRAIN = "fleet-workers", "fleet-supervisor", "fleet-agent", "fleet-drain"
_KEPT_DESCRIPTORS = 16_384
"""Up to three of each worker."""
_DRAIN_SECONDS = 60
_STOP_SECONDS = 600
"""Systemd's own bound on a drain: the longest grace an app should need."""

_WITH_WORKERS: tuple[Setting, ...] = (("PartOf", f"{WORKERS}.service"), ("After", f"{WORKERS}.service"))

_AGENT_HARDENING: tuple[Setting, ...] = (
    # It runs as root: whoever may command the supervisor may run anything as anybody. What it needs of that is little: to see
    # whose a listening socket is, to run health commands as their workers' users, and to end those that hang.
    ("CapabilityBoundingSet", "CAP_SYS_PTRACE CAP_SETUID CAP_SETGID CAP_KILL CAP_DAC_READ_SEARCH"),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "full"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("SystemCallArchitectures", "native"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the programs and folders of one host are."""

    supervisor: Path
    agent: Path
    config: Path
    runtime_dir: Path
    log_dir: Path
    cgroup: Path | None
    """fleet-workers' cgroup v2 folder; None: workers share the supervisor's cgroup, and have no limits."""

    def supervisor_command(self) -> tuple[str | Path, ...]:
        words = (self.supervisor, "run", "--runtime-dir", self.runtime_dir, "--log-dir", self.log_dir)
        return (*words, "--cgroup", self.cgroup) if self.cgroup is not None else words

    def agent_command(self) -> tuple[str | Path, ...]:
        return self.agent, "run", "--config", self.config


def units(place: Place) -> list[Unit]:
    """In the order of their start."""
    return [_workers(place), _supervisor(place), _agent(place), _drain(place)]


def _workers(place: Place) -> Unit:
    if place.cgroup is None:
        start = command("/bin/true")
    else:
        # systemd removes the cgroup of a service without processes, and one that holds processes itself can delegate nothing:
        # so a process that does nothing waits in a folder of its own.
        script = 'mkdir -p "$0/keeper" && { sleep infinity & echo $! > "$0/keeper/cgroup.procs"; }'
        start = command("/bin/sh", "-c", script, place.cgroup)
    return Unit(
        WORKERS,
        unit=(("Description", "fleetctl: the workers of this host"),),
        service=(
            ("Type", "oneshot"),
            ("RemainAfterExit", "yes"),
            ("ExecStart", start),
            ("Delegate", "yes"),
            ("Slice", "system.slice"),
            ("OOMPolicy", "continue"),
            ("TasksMax", "infinity"),
        ),
    )


def _supervisor(place: Place) -> Unit:
    runtime = place.runtime_dir.relative_to("/run")
    return Unit(
        SUPERVISOR,
        unit=(
            ("Description", "fleetctl: keeps the workers of this host alive"),
            ("Requires", f"{WORKERS}.service"),
            *_WITH_WORKERS,
            FOR_EVER,
        ),
        service=(
            # Nothing here may confine it: what it forks are other people's programs, and they would inherit it.
            *daemon(restart_seconds="100ms", watchdog_seconds=60, kept_descriptors=_KEPT_DESCRIPTORS),
            ("ExecStart", command(*place.supervisor_command())),
            ("RuntimeDirectory", str(runtime)),
            ("RuntimeDirectoryMode", "0711"),
            ("RuntimeDirectoryPreserve", "yes"),
            ("LimitNOFILE", "65536:524288"),
        ),
    )


def _agent(place: Place) -> Unit:
    return Unit(
        AGENT,
        unit=(
            ("Description", "fleetctl: runs what the controller assigned to this host"),
            ("Wants", f"{SUPERVISOR}.service {DRAIN}.service network-online.target"),
            *_WITH_WORKERS,
            ("After", f"{SUPERVISOR}.service network-online.target"),
            FOR_EVER,
        ),
        service=(
            *daemon(restart_seconds="1s", watchdog_seconds=60),
            ("ExecStart", command(*place.agent_command())),
            *_AGENT_HARDENING,
        ),
    )


def _drain(place: Place) -> Unit:
    drain = (place.agent, "drain", "--config", place.config, "--timeout", str(_DRAIN_SECONDS))
    return Unit(
        DRAIN,
        unit=(
            ("Description", "fleetctl: takes the workers of this host out of service before it goes down"),
            *_WITH_WORKERS,
            ("After", f"{SUPERVISOR}.service {AGENT}.service network-online.target"),
        ),
        service=(
            ("Type", "oneshot"),
            ("RemainAfterExit", "yes"),
            ("ExecStart", command("/bin/true")),
            ("ExecStop", command(*drain)),
            ("TimeoutStopSec", f"{_STOP_SECONDS}s"),
        ),
    )
