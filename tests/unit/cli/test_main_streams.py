"""Output that cannot be written, and standard streams that are not there."""

import subprocess
import sys
from pathlib import Path


def run(*arguments: str, **streams: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fleetctl.main", *arguments]
    return subprocess.run(command, text=True, check=False, timeout=60, **streams)  # type: ignore[call-overload,no-any-return]


def test_output_to_a_full_disk_is_a_failure_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("version", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "fleetctl: the output cannot be written: No space left on device\n"


def test_without_standard_streams_a_command_works_all_the_same() -> None:
    shell = f"exec {sys.executable} -m fleetctl.main version <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], check=False, timeout=60).returncode == 0
