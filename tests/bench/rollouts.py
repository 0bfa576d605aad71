"""`python -m tests.bench.rollouts`: every operation that replaces or moves workers, under load, on three hosts and two balancers.

Clients have both balancers' addresses and try a refused connection at the other one. Prints one JSON object a scene and exits 1
when a request failed that must not fail, or the workers' journals show fewer ready ones than promised.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.fleet.harness import MOODY_SERVER, Fleet, Load, load_on, wait_for
from tests.integration.fleet.judge import journals_show

_SIZE = 12
_LARGEST = 24
_SMALLEST = 6
_IN_FLIGHT = 10
"""On all workers together: 200 requests a second of 50 ms."""
_POLICIES = ("--ready-path", "/healthz", "--start-timeout", "5s", "--bake-time", "6s")


@dataclass(frozen=True, slots=True)
class Scene:
    name: str
    play: Callable[[Fleet, Load], str]
    """Returns what was wrong, in words."""
    ready: int = _SIZE
    most_on_host: int = _SIZE // 3 + 1
    kills: bool = False
    """A worker is killed every second meanwhile."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rollouts")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scenes", nargs="*", help="only those whose name holds one of these words")
    arguments = parser.parse_args()
    wanted = [s for s in _SCENES if not arguments.scenes or any(word in s.name for word in arguments.scenes)]
    good = True
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder), balancers=2) as fleet:
        fleet.start()
        addresses = fleet.addresses(fleet.start_app(MOODY_SERVER, _SIZE, *_POLICIES))
        for number in range(1, arguments.rounds + 1):
            for scene in wanted:
                outcome = _played(fleet, addresses, scene)
                print(json.dumps({"round": number, "scene": scene.name, **outcome}, ensure_ascii=False), flush=True)
                good &= outcome["good"]
    return 0 if good else 1


def _played(fleet: Fleet, addresses: list[str], scene: Scene) -> dict[str, Any]:
    killed: list[int] = []
    with load_on(addresses, fleet.folder) as load:
        began = time.monotonic()
        with _kills(fleet, killed, wanted=scene.kills):
            wrong = _judged(fleet, load, scene)
        seconds = time.monotonic() - began
        load.wait_for_more(100)
        summary = load.stop()
    failed, gets = summary["failed"], summary["failed_by_method"].get("GET", 0)
    allowed = _IN_FLIGHT * len(killed)
    return {
        "seconds": round(seconds, 1),
        "sent": summary["sent"],
        "failed": failed,
        "failed_gets": gets,
        "killed": len(killed),
        "p99_ms": summary["latency_ms"]["p99"],
        "wrong": wrong,
        "failures": summary["details"][:5],
        "good": not wrong and not gets and failed <= allowed,
    }


def _judged(fleet: Fleet, load: Load, scene: Scene) -> str:
    if scene.kills:  # whom a stranger kills the journals cannot tell from whom we stop
        return scene.play(fleet, load)
    try:
        with journals_show(fleet, size=scene.ready, most_on_host=lambda _host: scene.most_on_host):
            return scene.play(fleet, load)
    except AssertionError as error:
        return str(error)


@contextmanager
def _kills(fleet: Fleet, killed: list[int], *, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with fleet.workers_killed_every(1.0) as pids:
        yield
    killed += pids


# The scenes


def _soft_restart(fleet: Fleet, _: Load) -> str:
    return _replacing(fleet, "soft-restart", "my-app")


def _env_set(fleet: Fleet, _: Load) -> str:
    return _replacing(fleet, "env-set", "my-app", f"COLOUR={time.monotonic_ns()}")


def _rollback(fleet: Fleet, _: Load) -> str:
    return _replacing(fleet, "rollback", "my-app")


def _set_size(fleet: Fleet, _: Load) -> str:
    for size in (_LARGEST, _SMALLEST):
        fleet.do("set-size", "my-app", str(size), "-y")
    return _wrong_size(fleet, _SMALLEST)


def _back_to_size(fleet: Fleet, _: Load) -> str:
    fleet.do("set-size", "my-app", str(_SIZE), "-y")
    return _wrong_size(fleet, _SIZE)


def _drain(fleet: Fleet, _: Load) -> str:
    fleet.do("host", "drain", "host2", "-y")
    left = [worker["id"] for worker in fleet.ask("ps", "my-app") if worker["host"] == "host2"]
    fleet.do("host", "uncordon", "host2")
    fleet.do("set-size", "my-app", str(_SIZE), "-y")
    return f"left on host2: {left}" if left else _wrong_size(fleet, _SIZE)


def _balancer_restart(sign: signal.Signals) -> Callable[[Fleet, Load], str]:
    """A fleet-balancer ends in the middle of a restart, and is started again by its service manager."""

    def play(fleet: Fleet, load: Load) -> str:
        before = fleet.pids()
        service, pid = fleet.daemon("balancer", "2")
        with fleet.begun("soft-restart", "my-app") as restart:
            load.wait_for_more(200)
            os.kill(pid, sign)
            wait_for(lambda: fleet.daemons().get(service, pid) != pid, f"{service} started again")
            code = restart.wait(120)
        return f"exit {code}" if code else _stayed(before, fleet)

    return play


def _broken(mood: str) -> Callable[[Fleet, Load], str]:
    def play(fleet: Fleet, _: Load) -> str:
        before = fleet.pids()
        result = fleet.run("env-set", "my-app", f"MOOD={mood}", "LIFE_MS=5000")
        if result.code != 1:
            return f"exit {result.code}: {result.errors}"
        return "" if fleet.pids() == before else "a worker was touched"

    return play


def _replacing(fleet: Fleet, *command: str) -> str:
    before = fleet.pids()
    fleet.do(*command)
    return _stayed(before, fleet)


def _stayed(before: set[int], fleet: Fleet) -> str:
    stayed = before & fleet.pids()
    return f"not replaced: {sorted(stayed)}" if stayed else ""


def _wrong_size(fleet: Fleet, size: int) -> str:
    try:  # where workers are killed meanwhile, one may be starting again just now
        wait_for(lambda: len(fleet.pids()) == size, f"{size} workers ready", 5)
    except AssertionError as error:
        return str(error)
    return ""


_SCENES = [
    Scene("soft-restart", _soft_restart),
    Scene("env-set", _env_set),
    Scene("rollback", _rollback),
    Scene("set-size 12-24-6", _set_size, ready=_SMALLEST, most_on_host=_LARGEST // 3 + 1),
    Scene("set-size 6-12", _back_to_size, ready=_SMALLEST),
    Scene("host drain", _drain, most_on_host=_SIZE // 2 + 1),
    Scene("balancer restarted in a soft-restart", _balancer_restart(signal.SIGTERM)),
    Scene("balancer killed in a soft-restart", _balancer_restart(signal.SIGKILL)),
    Scene("broken: crash", _broken("crash")),
    Scene("broken: silent", _broken("silent")),
    Scene("broken: sick", _broken("sick")),
    Scene("broken: dies", _broken("dies")),
    Scene("soft-restart, a worker killed a second", _soft_restart, kills=True),
    Scene("set-size 12-24-6, a worker killed a second", _set_size, kills=True),
    Scene("set-size 6-12, a worker killed a second", _back_to_size, kills=True),
    Scene("rollback, a worker killed a second", _rollback, kills=True),
]


if __name__ == "__main__":
    sys.exit(main())
