"""fleet-controller: `fleet-controller run --config FILE`."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fleet.v1 import agent_pb2, agent_pb2_grpc, balancer_pb2, balancer_pb2_grpc, control_pb2, control_pb2_grpc
from fleet_controller import restore_command
from fleet_controller.artifact_homes import FolderHome, open_home
from fleet_controller.artifacts import ArtifactStore
from fleet_controller.install import command as install
from fleet_controller.leadership import Leadership
from fleet_controller.metrics import FleetCollector
from fleet_controller.services.agent_service import AgentService
from fleet_controller.services.balancer_service import BalancerService
from fleet_controller.services.control_artifacts import ArtifactCalls
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.control_service import ControlService
from fleet_controller.services.log_relay import LogRelay
from fleet_controller.store.etcd import EtcdStore
from fleet_controller.store.interface import Store
from fleet_core import service_manager
from fleet_core.config import ConfigError, ControllerConfig
from fleet_core.grpc_tls import server_credentials, server_options
from fleet_core.metrics import serve_metrics
from fleet_core.scheduling import take_short_slices
from fleet_core.version import program_version
from fleet_core.watchdog import show_life

_log = logging.getLogger(__name__)
_STOP_GRACE_SECONDS = 1.0
_PING_INTERVALS = 2.0
_ANSWER_INTERVALS = 5 / 3
"""Clients are asked for signs of life after so many intervals between heartbeats, and have so many for the answer: three seconds
and two and a half, unless the configuration says otherwise."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 ended by SIGTERM or SIGINT, or done; 1 cannot run; 2 usage or configuration; 5 refused."""
    parser = argparse.ArgumentParser(
        prog="fleet-controller", description="Keeps a fleet's desired state and drives hosts to it."
    )
    parser.add_argument("--version", action="version", version=program_version())
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run in the foreground, as a service manager wants it")
    run.add_argument("--config", type=Path, required=True, help="the configuration file (TOML)")
    restore_command.add_command(commands)
    install.add_commands(commands)
    arguments = parser.parse_args(argv)
    if arguments.command in install.COMMANDS:
        return install.run(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        config = ControllerConfig.load(arguments.config)
    except ConfigError as error:
        print(f"fleet-controller: {error}", file=sys.stderr)
        return 2
    take_short_slices(children=True)
    try:
        if arguments.command == restore_command.COMMAND:
            return asyncio.run(restore_command.run(config, arguments))
        asyncio.run(serve(config))
    except (OSError, ValueError) as error:
        print(f"fleet-controller: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(config: ControllerConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when a certificate cannot be read or the address is taken."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    store = EtcdStore(config.etcd, (config.etcd_tls or config.tls).files())
    leadership = Leadership(store, config.name, config.advertise or config.listen, config.heartbeat_interval_seconds)
    artifacts = ArtifactCalls(_artifact_store(config), leadership)
    server = _server(config, leadership, store, artifacts)
    metrics = await serve_metrics(config.metrics, FleetCollector(leadership)) if config.metrics else None
    try:
        await server.start()
        _log.info("listening on %s", config.listen)
        gc.freeze()  # what is there now stays: no search for garbage looks through it while others wait
        service_manager.notify("READY=1")
        leading = asyncio.create_task(leadership.run(), name="leadership")
        waiting = asyncio.create_task(ending.wait(), name="ending")
        living = asyncio.create_task(show_life(), name="watchdog")
        tidying = asyncio.create_task(artifacts.keep_tidy(), name="artifacts")
        await asyncio.wait((leading, waiting), return_when=asyncio.FIRST_COMPLETED)
        service_manager.notify("STOPPING=1")
        leading.cancel()
        waiting.cancel()
        living.cancel()
        tidying.cancel()
        results = await asyncio.gather(leading, waiting, living, tidying, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]
    finally:
        await server.stop(_STOP_GRACE_SECONDS)
        if metrics is not None:
            await metrics.close()
        await store.close()


def _artifact_store(config: ControllerConfig) -> ArtifactStore:
    """Raises OSError, ValueError."""
    if config.artifacts:
        # A store of objects cannot hold half a file: uploads under way lie here, and begin anew under another leader.
        return ArtifactStore(open_home(config.artifacts), config.state_dir / "uploads", config.artifact_quota_bytes)
    folder = config.artifact_dir or config.state_dir / "artifacts"
    return ArtifactStore(FolderHome(folder), folder, config.artifact_quota_bytes)


def _server(
    config: ControllerConfig, leadership: Leadership, store: Store, artifacts: ArtifactCalls
) -> grpc.aio.Server:
    logs = LogRelay()
    balancers = BalancerService(leadership)
    beat = config.heartbeat_interval_seconds
    server = grpc.aio.server(options=server_options(_PING_INTERVALS * beat, _ANSWER_INTERVALS * beat))
    agent_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(leadership, logs, artifacts), server)
    balancer_pb2_grpc.add_BalancerServiceServicer_to_server(balancers, server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(
        ControlService(Desk(leadership, balancers), logs, artifacts, store, config.etcd), server
    )
    liveness = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
    names = [
        module.DESCRIPTOR.services_by_name[service].full_name
        for module, service in (
            (agent_pb2, "AgentService"),
            (balancer_pb2, "BalancerService"),
            (control_pb2, "ControlService"),
        )
    ]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        server.add_secure_port(config.listen, server_credentials(config.tls.files()))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {config.listen}: is it in use by another program?") from error
    return server


if __name__ == "__main__":
    sys.exit(main())
