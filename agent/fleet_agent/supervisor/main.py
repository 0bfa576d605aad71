"""`fleet-supervisor run` and `fleet-supervisor stop`."""

import argparse
import gc
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.protocol import Decoder, ProtocolError, encode
from fleet_core.scheduling import take_short_slices

SOCKET_NAME = "supervisor.sock"
_DEFAULT_GRACE_SECONDS = 10.0
_STOP_MARGIN_SECONDS = 30.0


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="fleet-supervisor", description="Keeps this host's workers alive.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="keep workers alive until SIGTERM, which leaves them running")
    run.add_argument("--runtime-dir", type=Path, required=True, help="socket, journal and log pipes; best in /run")
    run.add_argument(
        "--log-dir", type=Path, required=True, help="APP/SLOT.out.log and APP/SLOT.err.log are written here"
    )
    run.add_argument(
        "--cgroup",
        metavar="DIR",
        type=Path,
        help="a delegated cgroup v2 folder for this supervisor alone, in which each worker gets a cgroup and its limits",
    )
    stop = commands.add_parser("stop", help="stop every worker; the supervisor goes on")
    stop.add_argument("--runtime-dir", type=Path, required=True)
    stop.add_argument(
        "--grace-seconds", type=_seconds, default=_DEFAULT_GRACE_SECONDS, help="until SIGKILL (default: 10)"
    )
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "run":
            _run(arguments.runtime_dir.absolute(), arguments.log_dir.absolute(), arguments.cgroup)
        else:
            _stop(arguments.runtime_dir.absolute() / SOCKET_NAME, arguments.grace_seconds)
    except (OSError, ProtocolError, _Failure) as error:
        complain(f"{error}")
        return 1
    return 0


class _Failure(Exception):  # noqa: N818 - never leaves this module
    """What the user is told."""


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _run(runtime_dir: Path, log_dir: Path, cgroup: Path | None) -> None:
    from fleet_agent.supervisor.host import Host

    _open_standard_descriptors()
    with ExitStack() as owned:
        host = owned.enter_context(
            closing(Host(runtime_dir, log_dir, runtime_dir / SOCKET_NAME, cgroup=cgroup and cgroup.absolute()))
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, host.stop)
        take_short_slices(children=False)
        gc.freeze()  # what is there now stays: shared with children until they exec, and never looked at again
        host.run()


def _open_standard_descriptors() -> None:
    """A pipe that got number 0, 1 or 2 would be taken for stdin, stdout or stderr by every child."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def _stop(socket_path: Path, grace_seconds: float) -> None:
    deadline = time.monotonic() + grace_seconds + _STOP_MARGIN_SECONDS
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.settimeout(deadline - time.monotonic())
            connection.connect(str(socket_path))
        except OSError as error:
            raise _Failure(
                f"no supervisor answers on {socket_path} ({error.strerror}); start `fleet-supervisor run` on this folder: "
                "it adopts what was left, and can then stop it"
            ) from error
        connection.sendall(encode({"id": 1, "request": "stop_all", "grace_seconds": grace_seconds}))
        decoder = Decoder()
        while True:
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(65536)
            except TimeoutError as error:
                raise _Failure("workers are still running after SIGKILL; see `ps` for processes in state D") from error
            if not data:
                raise _Failure("the supervisor went away before all workers were down; run the command again")
            for message in decoder.feed(data):
                if message.get("ok") is not True:
                    raise _Failure(str(message.get("error", "refused")))
                return


if __name__ == "__main__":
    sys.exit(main())
