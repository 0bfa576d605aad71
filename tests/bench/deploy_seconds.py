"""`python -m tests.bench.deploy_seconds`: a deploy to ten hosts beside copying and unpacking the same bytes by hand.

Ten hosts on this machine, an app of 50 MB in 2,000 files, sent as a .tar.gz, never the same one twice. A round is the whole
command: upload, ten fetches, ten times verified and unpacked, ten workers started and ready. By hand: ten copies of the archive
and `tar -xzf` of each, as many at a time as there are cores, on the same disk. Each of the two goes first in every other round:
half a gigabyte of files takes memory, and whoever comes first may find pages that were just let go, or a kernel that must first
ask the machine below for them. Prints one JSON object a round.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

from tests.integration.fleet.harness import Fleet

_HOSTS = 10
_FILES = 2_000
_FILE_BYTES = 25_000
_TARGET = 1.5
_WORDS = [f"word{number}".encode() for number in range(5_000)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.deploy_seconds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--hosts", type=int, default=_HOSTS)
    arguments = parser.parse_args()
    ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder), arguments.hosts) as fleet:
        fleet.start()
        content = _content()
        for number in range(1, arguments.rounds + 1):
            archive = _archive(fleet.folder / f"code-{number}.tar.gz", content, number)
            deployed = partial(_deployed, fleet, archive, f"app-{number}", arguments.hosts)
            copied = partial(_by_hand, archive, fleet.folder / "by-hand", arguments.hosts)
            if number % 2:
                by_hand, seconds = copied(), deployed()
            else:
                seconds, by_hand = deployed(), copied()
            ratios.append(seconds / by_hand)
            report = {
                "round": number,
                "first": "by hand" if number % 2 else "deploy",
                "archive_mb": round(archive.stat().st_size / 1e6, 1),
                "seconds": round(seconds, 2),
                "by_hand": round(by_hand, 2),
                "ratio": round(ratios[-1], 2),
            }
            print(json.dumps(report), flush=True)
            archive.unlink()
    middle = statistics.median(ratios)
    verdict = "met" if middle <= _TARGET else "not met"
    summary = {"median": round(middle, 2), "min": round(min(ratios), 2), "max": round(max(ratios), 2)}
    print(json.dumps({"ratio": summary, "target": _TARGET, "is": verdict}))
    return 0


def _content() -> list[bytes]:
    """Half of it as compressible as source code is, half not at all, as pictures and archives are."""
    dice = random.Random(1)
    text = [b" ".join(dice.choices(_WORDS, k=_FILE_BYTES // 8))[:_FILE_BYTES] for _ in range(_FILES // 2)]
    return text + [dice.randbytes(_FILE_BYTES) for _ in range(_FILES - len(text))]


def _archive(path: Path, content: list[bytes], number: int) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        for index, data in enumerate([f"#!/bin/sh\nexec sleep 1000 # {number}\n".encode(), *content]):
            member = tarfile.TarInfo("run" if not index else f"part-{index % 40}/file-{index}")
            member.size, member.mode = len(data), 0o755 if not index else 0o644
            archive.addfile(member, BytesIO(data))
    return path


def _by_hand(archive: Path, folder: Path, hosts: int) -> float:
    def one(number: int) -> None:
        target = folder / f"host{number}"
        target.mkdir(parents=True)
        copy = target / archive.name
        subprocess.run(["cp", archive, copy], check=True)
        subprocess.run(["tar", "-xzf", copy, "-C", target], check=True)

    os.sync()
    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(hosts)))
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds


def _deployed(fleet: Fleet, archive: Path, app: str, hosts: int) -> float:
    command = ("deploy", app, str(archive), "-i", str(hosts), "--no-build", "--listen", "none")
    ready = ("--ready", "uptime", "--min-uptime", "0s", "--min-ready", "0s")
    os.sync()
    began = time.monotonic()
    fleet.do(*command, *ready, "--", "./run")
    seconds = time.monotonic() - began
    folders = {worker["host"] for worker in fleet.workers(app)}
    assert len(folders) == hosts, f"{app} runs on {folders} only"
    fleet.do("remove", app, "--yes")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
