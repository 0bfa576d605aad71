"""`make faults-controller DEATHS=30 SEED=1`: kill -9 of the controller at random moments of rollouts, under load.

Each rollout must be finished by the next leader, no request may fail, every process must be replaced that was to be, and the
workers' journals must show ready ≥ size and no more than size + surge on a host throughout. Exit codes: 0 kept, 1 broken.
"""

import argparse
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.integration.fleet.harness import MOODY_SERVER, Fleet, Load, load_on, wait_for
from tests.integration.fleet.judge import journals_show

SIZE = 6
_LARGER = 9
_MOST_ON_HOST = _LARGER // 3 + 1
_LONGEST_SECONDS = 5.0
_END_SECONDS = 90


@dataclass(frozen=True, slots=True)
class Death:
    """The controller dies so many seconds after the command was acknowledged."""

    command: tuple[str, ...]
    after: float
    replaces: bool
    """Every worker's process must be another one afterwards."""


def schedule(seed: int, deaths: int) -> list[Death]:
    """Pure, and the same for the same seed. Sizes alternate, so that each change of size changes something."""
    dice = Random(seed)
    planned: list[Death] = []
    size = SIZE
    for number in range(deaths):
        kind = dice.choice(("restart", "update", "size"))
        after = dice.uniform(0.0, _LONGEST_SECONDS)
        if kind == "restart":
            planned.append(Death(("soft-restart", "my-app"), after, replaces=True))
        elif kind == "update":
            planned.append(Death(("env-set", "my-app", f"NUMBER={number}"), after, replaces=True))
        else:
            size = SIZE + _LARGER - size
            # A change of size is over sooner than a restart.
            planned.append(Death(("set-size", "my-app", str(size), "-y"), after / 5, replaces=False))
    return planned


def kill_through(fleet: Fleet, load: Load, death: Death) -> str:
    """One rollout with one death in it; returns what was broken, in words, or nothing."""
    before = fleet.pids()
    service, pid = fleet.daemon("controller")
    fleet.do(*death.command, "--no-wait")
    time.sleep(death.after)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: fleet.daemons().get(service, pid) != pid, f"{service} started again")
    wait_for(lambda: fleet.run("ls").code == 0, "the controller answers")
    ended = fleet.run("rollout", "status", "my-app", "--watch", "--timeout", str(_END_SECONDS))
    load.wait_for_more(20)
    if ended.code:
        return f"the rollout did not end well: exit {ended.code}\n{ended.output}{ended.errors}"
    if death.replaces and (stayed := before & fleet.pids()):
        return f"not replaced: {sorted(stayed)}"
    return ""


def run(fleet: Fleet, deaths: list[Death]) -> list[str]:
    """Everything that was broken, in words."""
    address = fleet.start_app(MOODY_SERVER, SIZE, "--bake-time", "1s")
    broken: list[str] = []
    with load_on(address, fleet.folder) as load:
        try:
            with journals_show(fleet, size=SIZE, most_on_host=lambda _host: _MOST_ON_HOST):
                for number, death in enumerate(deaths, 1):
                    found = kill_through(fleet, load, death)
                    line = {"death": number, "command": " ".join(death.command), "after": round(death.after, 2)}
                    print(json.dumps({**line, "broken": found}), flush=True)
                    if found:
                        broken.append(f"death {number}: {found}")
        except AssertionError as error:
            broken.append(str(error))
        summary = load.stop()
    if summary["failed"]:
        broken.append(f"{summary['failed']} of {summary['sent']} requests failed: {summary['details'][:10]}")
    print(json.dumps({"sent": summary["sent"], "failed": summary["failed"]}), flush=True)
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.controller_deaths")
    parser.add_argument("--deaths", type=int, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder)) as fleet:
        fleet.start()
        broken = run(fleet, schedule(arguments.seed, arguments.deaths))
    for what in broken:
        print(f"BROKEN: {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
