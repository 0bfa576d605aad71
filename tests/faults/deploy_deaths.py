"""`make faults-deploy DEATHS=30 SEED=1`: kill -9 of controller, agent and client at random moments of deploys.

Each deploy sends code of its own, which takes a while to arrive and to build. After each death the same command again must end
well, with every worker on the new code. The code itself tells when it is run before its build ended, and nothing may be left
behind: no part of an upload or a fetch, no folder without its mark, no process of a build. Exit codes: 0 kept, 1 broken.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fleet_agent.code_folders import VERSIONS_KEPT
from tests.integration.fleet.harness import Fleet, wait_for

VICTIMS = ("controller", "agent", "client")
_SIZE = 3
_LONGEST_SECONDS = 4.0
_END_SECONDS = 60.0
_CLEAN_SECONDS = 20.0
WEIGHT_BYTES = 20_000_000
_MARK = "build-of-a-killed-deploy"
_SERVER = """
const fs = require('node:fs');
const read = (name) => fs.existsSync(name) ? fs.readFileSync(name, 'utf8') : '';
if (read('built.txt') !== read('version.txt') || fs.statSync('weight').size !== Number(process.env.WEIGHT)) {
  fs.appendFileSync(process.env.HALF, `${process.cwd()}\\n`);
  process.exit(1);
}
require('node:http').createServer((request, response) => response.end()).listen(3000);
"""
_BUILD = f"""
set -e
(exec -a {_MARK} sleep 300) &
sleep 0.7
cp version.txt half.txt
mv half.txt built.txt
"""
"""What it leaves behind in the background must not outlive it."""


@dataclass(frozen=True, slots=True)
class Death:
    victim: str
    after: float
    """Seconds after the command began."""


def schedule(seed: int, deaths: int) -> list[Death]:
    """Pure, and the same for the same seed; every victim has its turn."""
    dice = Random(seed)
    return [Death(VICTIMS[number % len(VICTIMS)], dice.uniform(0.3, _LONGEST_SECONDS)) for number in range(deaths)]


class Deploys:
    def __init__(self, fleet: Fleet, seed: int, app: str, weight: int) -> None:
        self._weight = weight
        self._fleet = fleet
        self._app = app
        self._dice = Random(seed)
        self._code = fleet.folder / "deployed"
        self._code.mkdir()
        self._half = fleet.folder / "half-run.txt"
        (self._code / "server.js").write_text(_SERVER)
        (self._code / "build.sh").write_text(_BUILD)
        self._write("first")
        options = ("-i", str(_SIZE), "--bake-time", "0s", "-e", f"HALF={self._half}", "-e", f"WEIGHT={weight}")
        fleet.do("deploy", app, str(self._code), *options, "--build", "bash build.sh", "--", "node", "server.js")

    def _write(self, version: str) -> None:
        (self._code / "version.txt").write_text(version)
        (self._code / "weight").write_bytes(self._dice.randbytes(self._weight))

    def die_through(self, number: int, death: Death) -> str:
        """One deploy with one death in it; returns what was broken, in words, or nothing."""
        fleet = self._fleet
        self._write(f"version {number}")
        before = {worker["revision"] for worker in fleet.workers(self._app)}
        command = (str(fleet.program), "deploy", self._app, str(self._code))
        with (fleet.folder / "deploy.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=fleet.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=fleet.folder
            )
            time.sleep(death.after)
            if death.victim == "client":
                process.kill()
            else:
                names = ("controller",) if death.victim == "controller" else ("agent", f"host{number % 3 + 1}")
                service, pid = fleet.daemon(*names)
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: fleet.daemons().get(service, pid) != pid, f"{service} started again")
            process.wait(_END_SECONDS)
        again = fleet.run("deploy", self._app, str(self._code), seconds=_END_SECONDS)
        if again.code:
            return f"the same command again: exit {again.code}\n{again.output}{again.errors}"
        workers = fleet.workers(self._app)
        if len(workers) != _SIZE or {worker["revision"] for worker in workers} & before:
            return f"not every worker runs the new code: {workers}"
        if self._half.exists():
            return f"half-built code was run: {self._half.read_text()}"
        wait_for(lambda: not self._left_behind(), f"nothing left behind: {self._left_behind()}", _CLEAN_SECONDS)
        return ""

    def _left_behind(self) -> list[str]:
        """What only a deploy under way may have."""
        left = [command for command in self._fleet.processes().values() if _MARK in command or "build_guard" in command]
        left += map(str, self._fleet.data_dir.rglob("*.part"))
        for lock in self._fleet.data_dir.rglob("artifacts/lock"):
            marks = {path.name.removesuffix(".ready") for path in lock.parent.glob("*.ready")}
            folders = {path.name for path in lock.parent.iterdir() if path.is_dir()}
            left += [str(lock.parent / name) for name in folders ^ marks]
            versions = sum(json.loads(mark.read_text())["app"] == self._app for mark in lock.parent.glob("*.ready"))
            if versions > VERSIONS_KEPT + 1:
                left.append(f"{versions} versions in {lock.parent}")
        return left


def run(fleet: Fleet, deaths: list[Death], seed: int, app: str = "my-app", weight: int = WEIGHT_BYTES) -> list[str]:
    """Everything that was broken, in words."""
    deploys = Deploys(fleet, seed, app, weight)
    broken: list[str] = []
    for number, death in enumerate(deaths, 1):
        began = time.monotonic()
        try:
            found = deploys.die_through(number, death)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            found = str(error)
        line = {"death": number, "of": death.victim, "after": round(death.after, 2)}
        print(json.dumps({**line, "seconds": round(time.monotonic() - began, 1), "broken": found}), flush=True)
        if found:
            broken.append(f"death {number}: {found}")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.deploy_deaths")
    parser.add_argument("--deaths", type=int, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder)) as fleet:
        fleet.start()
        broken = run(fleet, schedule(arguments.seed, arguments.deaths), arguments.seed)
    for what in broken:
        print(f"BROKEN: {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
