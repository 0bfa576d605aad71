"""Jobs for machines that start their services by Upstart (init(5) of upstart 1.x). Pure.

Upstart knows no readiness, no watchdog, no descriptors kept and no drain: a host's workers are stopped by the supervisor's
pre-stop. They outlive a `restart` of the agent, and a kill of either.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fleet_agent.install.units import Place


def jobs(place: Place, agent_job: Path) -> dict[Path, str]:
    """The job files: the agent's, and the supervisor's beside it, by which name the agent waits for it."""
    supervisor_job = agent_job.with_name("fleet-supervisor.conf")
    stop = (place.supervisor, "stop", "--runtime-dir", place.runtime_dir)
    return {
        supervisor_job: _job(
            "fleetctl: keeps the workers of this host alive",
            "start on (local-filesystems and net-device-up IFACE!=lo)\nstop on runlevel [!2345]",
            place.supervisor_command(),
            extra=f"kill timeout 30\nlimit nofile 65536 65536\npre-stop exec {_line(stop)}\n",
        ),
        agent_job: _job(
            "fleetctl: runs what the controller assigned to this host",
            "start on started fleet-supervisor\nstop on stopping fleet-supervisor",
            place.agent_command(),
        ),
    }


def _job(description: str, when: str, argv: Sequence[str | Path], extra: str = "") -> str:
    return f'description "{description}"\n\n{when}\n\nrespawn\nrespawn limit unlimited\n{extra}exec {_line(argv)}\n'


def _line(argv: Sequence[str | Path]) -> str:
    return shlex.join(str(word) for word in argv)
