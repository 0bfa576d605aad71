"""`logs -f` while agents die: every line of every host, once."""

import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

from tests.integration.fleet.harness import Fleet, wait_for

SOURCE = f"""#!{sys.executable} -S
import itertools, os, time
for number in itertools.count():
    os.write(1, b'%d\\n' % number)
    time.sleep(0.005)
"""
MORE = 150
"""Lines of a second."""


def test_followers_see_every_line_once_whatever_becomes_of_the_agents(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(SOURCE)
    program.chmod(0o755)
    followed = tmp_path / "followed"

    def seen() -> dict[str, list[int]]:
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for line in followed.read_text().split("\n")[:-1]:
            entry = json.loads(line)
            numbers[entry["host"]].append(int(entry["text"]))
        return numbers

    def more(*hosts: str) -> None:
        before = {host: len(numbers) for host, numbers in seen().items()}
        wait_for(
            lambda: all(len(seen()[host]) > before.get(host, 0) + MORE for host in hosts), "lines of " + str(hosts)
        )

    with Fleet(tmp_path / "fleet", hosts=2) as fleet:
        fleet.start()
        fleet.do(
            "start",
            str(program),
            "-n",
            "counts",
            "-i",
            "2",
            "--listen",
            "none",
            "--log-max-size",
            "4K",
            "--log-files",
            "99",
        )
        with followed.open("wb") as file, fleet.begun("logs", "-f", "--lines", "1", "-o", "json", output=file.fileno()):
            more("host1", "host2")
            for number in (signal.SIGKILL, signal.SIGTERM):
                os.kill(fleet.daemon("host1", "agent")[1], number)
                more("host1", "host2")
    for numbers in seen().values():
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
