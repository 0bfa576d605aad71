"""fleet-agent: runs what the controller assigned to this host. Killing it touches no worker."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import fleet_agent
from fleet_agent.departure import SOCKET_NAME, DepartureError, depart, serve_departures
from fleet_agent.dialler import Dialler
from fleet_agent.host import Host
from fleet_agent.identity import StateDirInUseError, boot_id, host_uid, lock_state_dir
from fleet_agent.launch import HostContext
from fleet_agent.log_compression import LogCompressor
from fleet_agent.metrics import AgentCollector
from fleet_agent.session import make_hello
from fleet_agent.sockets import ListenerTable
from fleet_agent.supervisor_link import SupervisorLink
from fleet_agent.upkeep import Upkeep, UsageSampler
from fleet_core.config import AgentConfig, ConfigError
from fleet_core.controller_link.calls import ControllerConnection
from fleet_core.metrics import MetricsServer, serve_metrics
from fleet_core.scheduling import take_short_slices
from fleet_core.service_manager import notify
from fleet_core.version import program_version
from fleet_core.watchdog import show_life

_PRELOAD = Path(fleet_agent.__file__).parent / "node" / "preload.js"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fleet-agent", description="Runs what the controller assigned to this host.")
    parser.add_argument("--version", action="version", version=program_version())
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run in the foreground, until SIGTERM; workers are not touched")
    run.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML; see fleet_core/config.py")
    drain = commands.add_parser(
        "drain", help="take this host's workers out of service and stop them, before a shutdown"
    )
    drain.add_argument("--config", type=Path, required=True, metavar="FILE", help="the running agent's")
    drain.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for requests to end, before workers are stopped"
    )
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] != ["run"]:
        # Not in an agent's memory.
        from fleet_agent.install import command as install

        install.add_commands(commands)
        if given[:1] and given[0] in install.COMMANDS:
            return install.run(parser.parse_args(given))
    arguments = parser.parse_args(given)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="fleet-agent: %(levelname)s: %(message)s")
    try:
        config = AgentConfig.load(arguments.config)
        asyncio.run(run_agent(config) if arguments.command == "run" else depart(config.runtime_dir, arguments.timeout))
    except (ConfigError, StateDirInUseError, DepartureError, OSError, ValueError) as error:
        print(f"fleet-agent: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # of a drain: the host stays
        return 130
    return 0


async def run_agent(config: AgentConfig) -> None:
    """Until SIGTERM or SIGINT. Raises StateDirInUseError, OSError, ValueError at the start, nothing later."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if config.ports.first + 1 > config.ports.last:
        raise ValueError("ports: the range must hold at least two ports")
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    take_short_slices(children=False)
    with ExitStack() as owned:
        owned.callback(os.close, lock_state_dir(config.state_dir))
        files = config.tls.files()
        files.read()
        listeners = ListenerTable()
        context = HostContext(
            config.name, config.address, dict(os.environ), str(_PRELOAD), config.environment, config.worker_user
        )
        host = owned.enter_context(
            closing(Host(context, config.state_dir, config.log_dir, config.ports, listeners, config.runtime_dir))
        )
        link = SupervisorLink(host, config.runtime_dir / "supervisor.sock", listeners)
        hello = partial(make_hello, host, host_uid(config.state_dir), boot_id(), config.labels)
        sampler = UsageSampler(host)
        dialler = Dialler(
            config.controllers,
            partial(ControllerConnection.connect, files=files),
            host,
            sampler,
            config.log_dir,
            hello,
        )
        metrics = await _serve_metrics(config.metrics, host, sampler, link) if config.metrics else None
        tasks = [
            asyncio.create_task(link.run(), name="supervisor-link"),
            asyncio.create_task(dialler.run(), name="dialler"),
            asyncio.create_task(LogCompressor(config.log_dir, host.apps_to_compress).run(), name="log-compressor"),
            asyncio.create_task(host.artifacts.run(), name="artifacts"),
            asyncio.create_task(Upkeep(host, sampler, link.fail).run(), name="upkeep"),
            asyncio.create_task(serve_departures(host, config.runtime_dir / SOCKET_NAME), name="departures"),
            asyncio.create_task(show_life(), name="watchdog"),
            asyncio.create_task(stopping.wait(), name="stopping"),
        ]
        gc.freeze()  # what is there now stays: no search for garbage looks through it while others wait
        notify("READY=1")
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            notify("STOPPING=1")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if metrics is not None:
                await metrics.close()


async def _serve_metrics(address: str, host: Host, sampler: UsageSampler, link: SupervisorLink) -> MetricsServer:
    """Raises OSError."""
    return await serve_metrics(address, AgentCollector(host, sampler, link))


if __name__ == "__main__":
    sys.exit(main())
