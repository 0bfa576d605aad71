"""`make demo`: the main job, on this machine, to watch.

Three hosts, an unmodified Express app with a hard-coded port and no signal handler, a constant load through the balancer; then
one host gets more workers and every process is replaced. Exits 1 when one request failed, or when one old process is still there.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_FOLDER = _ROOT / ".demo"
_BIN = Path(sys.executable).parent
_APP = "my-app"
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.2


class DemoError(Exception):
    """The demo cannot go on; the message is for the person watching."""


class Demo:
    """Owns every process the demo starts."""

    def __init__(self) -> None:
        self._address = f"127.0.0.1:{_free_port()}"
        self._up_log = _FOLDER / "up.log"
        self._load_output = _FOLDER / "load.jsonl"
        self._up: subprocess.Popen[bytes] | None = None
        self._load: subprocess.Popen[bytes] | None = None
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLEET_")},
            "FLEET_CONFIG": str(_FOLDER / "config.toml"),
        }

    def run(self) -> bool:
        """True when nothing failed and nothing old was left."""
        _title("A fleet of three hosts on this machine")
        self._start_up()
        self._show("host", "ls")

        _title("An Express app: port 3000 in its source, no signal handler, nothing of fleetctl in it")
        self._show("start", "./examples/express/server.js", "-n", _APP, "-i", "6", "--http", self._address)
        self._start_load()

        _title("Under load: 20 kept-alive and 20 fresh connections, GET and POST")
        self._show("set-size", _APP, "8", "--host", "host1")
        self._show("ps", _APP)
        before = self._pids()

        _title("Under the same load: every process replaced, host after host")
        self._show("soft-restart", _APP)
        self._show("ps", _APP)
        after = self._pids()
        self._wait_for_requests(200)

        return _report(self._end_load(), before, after)

    def close(self) -> None:
        """Stop everything; workers and daemons go with `up`."""
        if self._load is not None and self._load.poll() is None:
            self._load.kill()
            self._load.wait()
        if self._up is not None and self._up.poll() is None:
            print("\nStopping everything …", flush=True)
            self._up.send_signal(signal.SIGINT)
            try:
                self._up.wait(_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()
                raise DemoError(f"`fleetctl up` did not stop: see {self._up_log}") from None

    def _start_up(self) -> None:
        arguments = ["up", "--hosts", "3", "--data-dir", str(_FOLDER / "data")]
        _command(["up", "--hosts", "3"])
        with self._up_log.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches the demo alone, which then stops `up` in order.
            self._up = subprocess.Popen(
                [_BIN / "fleetctl", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait(self._all_here, "the hosts and the balancer to be there")

    def _all_here(self) -> bool:
        if self._up is not None and self._up.poll() is not None:
            raise DemoError(f"`fleetctl up` ended:\n{self._up_log.read_text()[-2000:]}")
        try:
            hosts, balancers = self._ask("host", "ls"), self._ask("balancer", "ls")
        except DemoError:
            return False
        states = [thing["state"] for thing in [*hosts, *balancers]]
        return states == ["online"] * 3 + ["connected"]

    def _start_load(self) -> None:
        with self._load_output.open("wb") as output:
            self._load = subprocess.Popen(
                [sys.executable, "-m", "tests.load", "--json", "--progress", "0.2", "--url", f"http://{self._address}"],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                start_new_session=True,
            )
        self._wait_for_requests(200)

    def _requests(self) -> int:
        if self._load is not None and self._load.poll() is not None:
            raise DemoError("the load ended by itself")
        lines = self._load_output.read_text().splitlines()
        return int(json.loads(lines[-1])["progress"]["sent"]) if lines else 0

    def _wait_for_requests(self, more: int) -> None:
        until = self._requests() + more
        self._wait(lambda: self._requests() >= until, f"{more} requests to be sent")

    def _end_load(self) -> dict[str, Any]:
        if self._load is None:
            raise DemoError("there is no load to end")
        self._load.send_signal(signal.SIGINT)
        self._load.wait(_WAIT_SECONDS)
        summary: dict[str, Any] = json.loads(self._load_output.read_text().splitlines()[-1])
        return summary

    def _show(self, *arguments: str) -> None:
        """Run a command as a user would, its output and progress in plain sight."""
        _command(arguments)
        done = subprocess.run([_BIN / "fleetctl", *arguments], env=self._environment, cwd=_ROOT, check=False)
        if done.returncode:
            raise DemoError(f"`fleetctl {' '.join(arguments)}` ended with {done.returncode}; more is in {self._up_log}")

    def _ask(self, *arguments: str) -> Any:
        done = subprocess.run(
            [_BIN / "fleetctl", *arguments, "-o", "json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise DemoError(done.stderr.strip())
        return json.loads(done.stdout)

    def _pids(self) -> set[int]:
        return {worker["pid"] for worker in self._ask("ps", _APP) if worker["ready"]}

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise DemoError(f"waited {_WAIT_SECONDS:.0f} s in vain for {what}; more is in {self._up_log}")
            time.sleep(_POLL_SECONDS)


def _report(summary: dict[str, Any], before: set[int], after: set[int]) -> bool:
    _title("What the clients saw")
    sent, latency = summary["sent_by_method"], summary["latency_ms"]
    print(f"  sent      {summary['sent']} requests ({sent.get('GET', 0)} GET, {sent.get('POST', 0)} POST)")
    print(f"  failed    {summary['failed']}")
    print(f"  latency   median {latency['p50']} ms, 99 % {latency['p99']} ms, longest {latency['max']} ms")
    print(f"  workers   {len(before)} before, {len(after)} after; {len(before & after)} of the old processes left")
    for failure in summary["details"][:10]:
        print(f"  {failure['kind']}: {failure['method']}: {failure['detail']}")
    return summary["failed"] == 0 and bool(after) and len(after) == len(before) and not before & after


def _title(text: str) -> None:
    print(f"\n── {text}", flush=True)


def _command(arguments: list[str] | tuple[str, ...]) -> None:
    print(f"\n$ fleetctl {' '.join(arguments)}", flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    demo = Demo()
    good = False
    try:
        try:
            good = demo.run()
        finally:
            demo.close()
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\nNo request failed, and every process is a new one." if good else "\nThe demo FAILED.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
