"""The command itself."""

import asyncio
from pathlib import Path

import click

from fleet_core.embedded_etcd import EtcdNotFound, find_etcd
from fleetctl.command import fleet_command
from fleetctl.errors import ExitCode
from fleetctl.settings import Settings as CliSettings
from fleetctl.up.display import Display
from fleetctl.up.errors import UpError
from fleetctl.up.fleet import run_fleet
from fleetctl.up.plan import usual_data_dir
from fleetctl.up.readiness import FleetProbe
from fleetctl.up.settings import ETCD_MEMBERS, MAX_BALANCERS, MAX_CONTROLLERS, MAX_HOSTS, Wanted
from fleetctl.up.topology import Programs

_START_SECONDS = 60.0
_START_SECONDS_PER_HOST = 3.0


@fleet_command("up")
@click.option(
    "--hosts", type=click.IntRange(1, MAX_HOSTS), metavar="N", help="Hosts to run here; default: 1, or as before."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where everything is kept; default: ~/.local/share/fleetctl/up.",
)
@click.option(
    "--balancers", type=click.IntRange(1, MAX_BALANCERS), metavar="N", help="Balancers; default: 1, or as before."
)
@click.option(
    "--controllers",
    "controller_count",
    type=click.IntRange(1, MAX_CONTROLLERS),
    metavar="N",
    help="Controllers; default: 1, or as before.",
)
@click.option(
    "--etcd-members",
    type=click.Choice([str(number) for number in ETCD_MEMBERS]),
    metavar="N",
    help="Members of etcd, 1, 3 or 5; default: 1, or as before. Chosen once for a data folder.",
)
@click.option(
    "--cgroup",
    metavar="DIR",
    help="A cgroup v2 folder of your own, for --memory-limit, --cpu-limit and --pids-limit; default: none, or as before.",
)
def up(
    settings: CliSettings,
    hosts: int | None,
    data_dir: Path | None,
    balancers: int | None,
    controller_count: int | None,
    etcd_members: str | None,
    cgroup: str | None,
) -> None:
    """Run the whole system on this machine, in the foreground.

    etcd, controllers, balancers and the hosts host1 to hostN, each host with its own agent, supervisor and ports. Daemons that
    die are started again. "ready" is printed once the controller answers and every host and balancer is connected. A context,
    "up" or for another --data-dir "up-ID", then leads there and is the current one; at the end the one before is again.

    Ctrl-C stops everything, workers too; once more: without waiting for them to finish. On the folder of an `up` that was
    killed, what it left running is adopted.
    """
    wanted = Wanted(
        hosts,
        balancers,
        controller_count,
        int(etcd_members) if etcd_members else None,
        str(Path(cgroup).absolute()) if cgroup else cgroup,
    )
    try:
        programs = Programs.installed(find_etcd())
    except EtcdNotFound as error:
        raise UpError(str(error), ExitCode.FAILED) from error
    folder = (data_dir or usual_data_dir()).resolve()
    timeout = settings.timeout or _START_SECONDS + _START_SECONDS_PER_HOST * (hosts or 1)
    asyncio.run(run_fleet(folder, wanted, programs, FleetProbe, Display(settings), timeout))
