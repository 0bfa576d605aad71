"""What `up` says: a calm start, one summary, then one line per event."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fleetctl.output import Output
from fleetctl.settings import Settings as CliSettings
from fleetctl.up.layout import balancer_addresses
from fleetctl.up.settings import Settings


class Display:
    """Lines for people, records for programs. With --quiet only events and "ready".

    Nobody has to listen: a reader that went away, or a terminal that was closed, must not end the fleet.
    """

    def __init__(self, options: CliSettings) -> None:
        self._options = options
        self._output = Output(options)

    def step(self, what: str) -> None:
        """A step of the start or of the end."""
        if not self._options.structured and not self._options.quiet:
            self._say(what)

    def event(self, what: str) -> None:
        """Something happened that nobody asked for."""
        if self._options.structured:
            self._record({"event": "daemon", "message": what})
        else:
            self._say(f"{time.strftime('%H:%M:%S')}  {what}")

    def ready(self, settings: Settings, data_dir: Path, adopted: Sequence[str], context: str) -> None:
        """The fleet is whole."""
        addresses = settings.controller_addresses
        if self._options.structured:
            self._record(
                {
                    "event": "ready",
                    "data_dir": str(data_dir),
                    "controllers": addresses,
                    "hosts": settings.hosts,
                    "balancers": settings.balancers,
                    "adopted": list(adopted),
                    "context": context,
                }
            )
            return
        self.step(
            f'\n  controller  {", ".join(addresses)} (context "{context}")\n'
            f"  hosts       {settings.hosts}, with ports from {min(settings.host_blocks)}\n"
            f"  balancers   {_balancers(settings.balancers)}\n"
            f"  data        {data_dir}, the daemons' logs in log/\n\n"
            "  In another terminal: fleetctl start ./server.js --http :8080 -i 2\n"
            "  Ctrl-C stops everything, workers too.\n"
        )
        self._say("ready")

    def stopped(self) -> None:
        if self._options.structured:
            self._record({"event": "stopped"})
        else:
            self.step("stopped: nothing is left running")

    def _say(self, text: str) -> None:
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except OSError:
            _fall_silent()

    def _record(self, data: dict[str, object]) -> None:
        try:
            self._output.record(data)
        except OSError:
            _fall_silent()


def _balancers(count: int) -> str:
    return "1" if count == 1 else f"{count}, on {', '.join(balancer_addresses(count))}"


def _fall_silent() -> None:
    """Also what is buffered must find a place to go at exit (Python's signal documentation, "Note on SIGPIPE")."""
    silence = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(silence, sys.stdout.fileno())
    os.close(silence)
