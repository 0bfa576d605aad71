"""`python -m tests.bench.deploys`: deploys under load to three hosts, good ones and bad ones, and the way back.

An Express app, built by `npm ci` on each host. Prints one JSON object a scene and exits 1 when a request failed, a bad deploy did
not end with exit 1 and its reason on one screen, touched a worker that ran before, or a host is left on the wrong code.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.fleet.harness import EXPRESS_SERVER, Fleet, Load, load_on
from tests.integration.fleet.judge import journals_show
from tests.ports import free_address

_APP = "my-app"
_SIZE = 6
_SCREEN = 24
_GOOD = EXPRESS_SERVER.read_text()


@dataclass(frozen=True, slots=True)
class Scene:
    name: str
    server: str
    options: tuple[str, ...] = ()
    reason: str = ""
    """Empty: it is good."""


_SCENES = (
    Scene("a new version", _GOOD),
    Scene("does not build", _GOOD, ("--build", "sh -c 'echo no compiler here; exit 3'"), "no compiler here"),
    Scene("does not boot", "throw new Error('no such shop');\n", (), "no such shop"),
    Scene("never gets ready", "setInterval(() => {}, 1000);\n", (), "not ready within"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.deploys")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder)) as fleet:
        fleet.start()
        code = _copied(fleet.folder / "shop")
        address = free_address()
        options = ("-i", str(_SIZE), "--http", address, "--bake-time", "2s", "--start-timeout", "5s")
        fleet.do("deploy", _APP, str(code), *options, *fleet.journal_options(), "--", "node", "server.js")
        for number in range(1, arguments.rounds + 1):
            for scene in _SCENES:
                good &= _played(fleet, address, number, scene.name, lambda scene=scene: _deploy(fleet, code, scene))  # type: ignore[misc]
            good &= _played(fleet, address, number, "rollback", lambda: _roll_back(fleet))
    return 0 if good else 1


def _copied(folder: Path) -> Path:
    """The example as a user has it, before anything is installed."""
    folder.mkdir()
    for name in ("package.json", "package-lock.json", "server.js"):
        shutil.copy(EXPRESS_SERVER.parent / name, folder)
    return folder


def _played(fleet: Fleet, address: str, number: int, name: str, play: Callable[[], str]) -> bool:
    with load_on(address, fleet.folder) as load:
        began = time.monotonic()
        wrong = _judged(fleet, load, play)
        seconds = time.monotonic() - began
        load.wait_for_more(100)
        summary = load.stop()
    report: dict[str, Any] = {
        "round": number,
        "scene": name,
        "seconds": round(seconds, 1),
        "sent": summary["sent"],
        "failed": summary["failed"],
        "wrong": wrong,
    }
    print(json.dumps(report, ensure_ascii=False), flush=True)
    return not wrong and not summary["failed"]


def _judged(fleet: Fleet, _load: Load, play: Callable[[], str]) -> str:
    try:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: _SIZE // 3 + 1):
            return play()
    except AssertionError as error:
        return str(error)


def _deploy(fleet: Fleet, code: Path, scene: Scene) -> str:
    (code / "server.js").write_text(f"// {time.monotonic_ns()}\n{scene.server}")
    before, ran = fleet.pids(), _digests(fleet)
    ended = fleet.run("deploy", _APP, str(code), *scene.options)
    if not scene.reason:
        if ended.code:
            return f"exit {ended.code}: {ended.errors}"
        kept = before & fleet.pids()
        return f"not replaced: {sorted(kept)}" if kept or len(_digests(fleet)) != 1 else ""
    if ended.code != 1 or scene.reason not in ended.errors:
        return f"exit {ended.code}, not 1 and {scene.reason!r}: {ended.errors}"
    if (lines := len(ended.errors.splitlines())) > _SCREEN:
        return f"the reason takes {lines} lines"
    if fleet.pids() != before or _digests(fleet) != ran:
        return f"workers {sorted(before)} of {ran} became {sorted(fleet.pids())} of {_digests(fleet)}"
    return ""


def _roll_back(fleet: Fleet) -> str:
    """From the newest good version to the one before: every host on its code."""
    revisions = fleet.ask("history", _APP)["revisions"]
    good = [revision["artifact_digest"] for revision in revisions if revision["good"]]
    fleet.do("rollback", _APP)
    wanted, found = good[-2], _digests(fleet)
    if found != {wanted}:
        return f"workers run in {found}, not in {wanted}"
    hosts = {worker["host"] for worker in fleet.workers(_APP)}
    marked = {mark.parents[2].name for mark in fleet.data_dir.glob(f"hosts/*/state/artifacts/{wanted}-*.ready")}
    return "" if hosts == marked else f"{wanted} is ready on the disks of {sorted(marked)}, not of {sorted(hosts)}"


def _digests(fleet: Fleet) -> set[str]:
    """Of the code that the workers truly run in."""
    folders = (Path(f"/proc/{pid}/cwd").readlink() for pid in fleet.pids())
    return {folder.parent.name.partition("-")[0] for folder in folders}


if __name__ == "__main__":
    sys.exit(main())
