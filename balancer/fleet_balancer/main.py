"""The command fleet-balancer: `run` keeps a load balancer on this host equal to the controller's lists, `stop` ends it."""

import argparse
import asyncio
import contextlib
import fcntl
import gc
import hashlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fleet_balancer.access_log.log import AccessLog
from fleet_balancer.certificates.store import CertificateStore
from fleet_balancer.driver import DriverError
from fleet_balancer.haproxy import binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_balancer.haproxy.stopping import stop_all
from fleet_balancer.holdings import Holdings, HoldingsError
from fleet_balancer.install import command as install
from fleet_balancer.metrics import BalancerCollector
from fleet_balancer.session import Session
from fleet_balancer.upstreams import Upstreams
from fleet_core import service_manager
from fleet_core.addresses import EVERY_ADDRESS
from fleet_core.config import BalancerConfig, ConfigError
from fleet_core.metrics import serve_metrics
from fleet_core.scheduling import take_short_slices
from fleet_core.version import program_version
from fleet_core.watchdog import show_life

_log = logging.getLogger(__name__)
_DONE, _FAILED, _REFUSED = 0, 1, 5


class BusyError(Exception):
    """Another fleet-balancer uses the runtime folder; the message is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.command in install.COMMANDS:
        return install.run(options)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        config = BalancerConfig.load(options.config)
        with _alone(config.runtime_dir):
            if options.command == "run":
                take_short_slices(children=True)
                asyncio.run(_run(config))
            else:
                asyncio.run(_stop(config, options.grace))
    except BusyError as error:
        return _say(error, _REFUSED)
    except (ConfigError, DriverError, HoldingsError) as error:
        return _say(error, _FAILED)
    except OSError as error:
        return _say(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), _FAILED)
    return _DONE


def _say(problem: object, status: int) -> int:
    print(f"fleet-balancer: {problem}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-balancer", description=__doc__)
    parser.add_argument("--version", action="version", version=f"fleet-balancer {program_version()}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run; at SIGTERM it exits and leaves the load balancer serving")
    stop = commands.add_parser("stop", help="stop the load balancer; fleet-balancer itself must not run")
    stop.add_argument("--grace", type=float, default=10.0, metavar="SECONDS", help="for open connections (default 10)")
    install.add_commands(commands)
    for command in (run, stop):
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML")
    return parser


@contextlib.contextmanager
def _alone(runtime_dir: Path) -> Iterator[None]:
    """Hold the runtime folder's lock. Raises BusyError when another process has it, OSError when there can be none."""
    runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(runtime_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"a fleet-balancer runs on {runtime_dir} already: stop it first") from error
        yield
    finally:
        os.close(descriptor)


async def _run(config: BalancerConfig) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    holdings = Holdings(config.state_dir)
    found = await asyncio.to_thread(binary.find, config.haproxy)
    _log.info("haproxy %s at %s", found, found.path)
    access_log = AccessLog(config.runtime_dir / "access.fifo", config.access_log_dir or config.state_dir / "access")
    driver = HaproxyDriver(
        config.runtime_dir,
        found,
        threads=config.threads,
        stored=service_manager.take_stored(),
        certificates=_certificates(config),
        access_log=access_log,
        secret=hashlib.sha256(config.tls.authority.read_bytes()).digest(),
    )
    upstreams = Upstreams(driver, holdings, config.listen_address)
    async with contextlib.AsyncExitStack() as owned:
        owned.push_async_callback(driver.close)
        if config.metrics:
            metrics = await serve_metrics(config.metrics, BalancerCollector(upstreams, access_log))
            owned.push_async_callback(metrics.close)
        await upstreams.start()
        gc.freeze()  # what is there now stays: no search for garbage looks through it while others wait
        service_manager.notify("READY=1")
        await _until(stopping, Session(config, driver, upstreams, holdings))
        service_manager.notify("STOPPING=1")
    _log.info("stopped; the load balancer goes on serving")


def _certificates(config: BalancerConfig) -> CertificateStore:
    """Raises OSError where the folder for given ones cannot be made."""
    given = config.certificates_dir or config.state_dir / "certificates"
    given.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = () if config.listen_address in EVERY_ADDRESS else (config.listen_address,)
    return CertificateStore(given, config.state_dir / "self-signed", (config.name, "localhost", "127.0.0.1", *own))


async def _until(stopping: asyncio.Event, session: Session) -> None:
    """Run the session until told to stop; what the session raises is raised here."""
    running = asyncio.create_task(session.run(), name="session")
    told = asyncio.create_task(stopping.wait())
    living = asyncio.create_task(show_life(), name="watchdog")
    try:
        await asyncio.wait((running, told), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        running.cancel()
        told.cancel()
        living.cancel()
        await asyncio.gather(running, told, living, return_exceptions=True)


async def _stop(config: BalancerConfig, grace: float) -> None:
    count = await stop_all(config.runtime_dir, grace)
    _log.info("haproxy stopped" if count else "no haproxy was running")


if __name__ == "__main__":
    sys.exit(main())
