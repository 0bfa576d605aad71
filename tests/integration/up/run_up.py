"""`fleetctl up` with fake daemons: run_up.py DATA_DIR HOSTS."""

import asyncio
import sys
from pathlib import Path

from fleet_core.tls import TlsFiles
from fleetctl.errors import CliError
from fleetctl.settings import Settings as CliSettings
from fleetctl.up.display import Display
from fleetctl.up.fleet import run_fleet
from fleetctl.up.readiness import Lacking
from fleetctl.up.settings import Settings, Wanted
from fleetctl.up.topology import Programs


class EverReady:
    """The fakes have no controller to ask."""

    def __init__(self, settings: Settings, operator: TlsFiles) -> None:
        pass

    async def lacking(self) -> Lacking | None:
        return None

    async def close(self) -> None:
        pass


def main() -> int:
    data_dir, hosts = Path(sys.argv[1]), sys.argv[2]
    fake = Path(__file__).with_name("fake_daemon.py")
    etcd = data_dir.parent / "etcd"
    etcd.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" etcd "$@"\n')
    etcd.chmod(0o755)
    programs = Programs(
        etcd, *((sys.executable, str(fake), role) for role in ("controller", "agent", "supervisor", "balancer"))
    )
    wanted = Wanted(hosts=int(hosts) if hosts != "-" else None)
    try:
        asyncio.run(run_fleet(data_dir, wanted, programs, EverReady, Display(CliSettings()), 30.0))
    except CliError as error:
        print(f"fleetctl: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
