"""`fleetctl up` as a process, with fake daemons: what it starts, restarts, adopts and stops."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fleetctl.up.layout import runtime_root
from fleetctl.up.process import find_marked
from fleetctl.up.settings import Settings

SERVICES = {"etcd", "controller1", "balancer1", "host1-agent", "host1-supervisor", "host2-agent", "host2-supervisor"}
DEADLINE_SECONDS = 30.0
Value = TypeVar("Value")


def until(condition: Callable[[], Value]) -> Value:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Up:
    """One data folder, and the `up` processes a test runs on it."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.journal = folder / "journal"
        self.journal.touch()
        self.environment = {
            **os.environ,
            "FAKE_JOURNAL": str(self.journal),
            "FLEET_CONFIG": str(folder / "config.toml"),
        }
        self.process: subprocess.Popen[str] | None = None
        self.output = folder / "output"

    def start(self, hosts: str = "2", **environment: str) -> subprocess.Popen[str]:
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("run_up.py")), str(self.data_dir), hosts],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, **environment},
                text=True,
            )
        return self.process

    def start_ready(self, hosts: str = "2", **environment: str) -> subprocess.Popen[str]:
        process = self.start(hosts, **environment)
        until(lambda: process.poll() is not None or "ready\n" in self.output.read_text())
        assert process.poll() is None, self.output.read_text()
        return process

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def entries(self, word: str) -> list[tuple[str, int, list[str]]]:
        """(service, pid, what follows the word), oldest first."""
        lines = [line.split() for line in self.journal.read_text().split("\n")[:-1]]
        return [(line[0], int(line[1]), line[3:]) for line in lines if line[2] == word]

    def pids(self) -> dict[str, int]:
        """Service → pid of its newest process."""
        return {service: pid for service, pid, _ in self.entries("started")}

    def workers(self) -> list[int]:
        return [int(words[0]) for _, _, words in self.entries("worker")]

    @property
    def settings(self) -> Settings:
        return Settings.parse((self.data_dir / "up.json").read_text(), "up.json")

    @property
    def fleet_id(self) -> str:
        return self.settings.fleet_id

    @property
    def runtime_root(self) -> Path:
        return runtime_root(self.data_dir, self.fleet_id, os.getuid(), self.settings.memory)

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if (self.data_dir / "up.json").exists():
            for daemon in find_marked(self.fleet_id):
                daemon.signal(signal.SIGKILL)
                daemon.close()
            if self.runtime_root != self.data_dir:
                shutil.rmtree(self.runtime_root, ignore_errors=True)
        for pid in self.workers():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    made.clean_up()


def test_everything_is_started_and_ctrl_c_leaves_nothing_behind(up: Up) -> None:
    up.start_ready()
    assert set(up.pids()) == SERVICES
    workers = up.workers()
    assert len(workers) == 2
    assert up.stop() == 0
    assert up.runtime_root == up.data_dir or not up.runtime_root.exists()
    assert not [pid for pid in [*up.pids().values(), *workers] if is_alive(pid)]
    assert not find_marked(up.fleet_id)
    stops = [words for _, _, words in up.entries("stop")]
    assert [words[0] for words in stops] == ["supervisor", "supervisor", "balancer"]


def test_a_second_ctrl_c_stops_without_waiting_for_workers(up: Up) -> None:
    process = up.start_ready("1", FAKE_STUBBORN="1")
    process.send_signal(signal.SIGINT)
    until(lambda: up.entries("stop"))
    assert up.stop() == 0
    assert not [pid for pid in up.workers() if is_alive(pid)]
    assert not find_marked(up.fleet_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_end_a_program_stop_everything_too(up: Up, number: signal.Signals) -> None:
    up.start_ready("1")
    assert up.stop(number) == 0
    assert not find_marked(up.fleet_id)


def test_every_kind_of_killed_daemon_is_started_again_and_no_worker_notices(up: Up) -> None:
    """Guards invariant 3."""
    up.start_ready()
    for service, pid in up.pids().items():
        os.kill(pid, signal.SIGKILL)
        until(lambda service=service, pid=pid: up.pids()[service] != pid)
        until(lambda service=service: f"{service} was killed by SIGKILL: started again" in up.output.read_text())
    assert len(up.workers()) == 2
    assert all(is_alive(pid) for pid in up.workers())
    assert up.stop() == 0


def test_a_worker_that_outlived_its_supervisor_leaves_no_zombie_when_it_ends(up: Up) -> None:
    process = up.start_ready("1")
    supervisor = up.pids()["host1-supervisor"]
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: up.pids()["host1-supervisor"] != supervisor)
    (worker,) = up.workers()
    parent = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == process.pid
    os.kill(worker, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{worker}").exists())


def test_a_stored_descriptor_comes_back_after_every_restart(up: Up) -> None:
    up.start_ready("1")
    for count in ("2", "3", "4"):
        os.kill(up.pids()["host1-supervisor"], signal.SIGKILL)
        until(
            lambda count=count: (
                ("host1-supervisor", [count]) in [(name, words) for name, _, words in up.entries("started")]
            )
        )


def test_an_up_that_was_killed_is_followed_by_one_that_adopts_its_daemons(up: Up) -> None:
    """Guards invariant 3."""
    up.start_ready().kill()
    assert up.process is not None
    up.process.wait()
    before, workers = up.pids(), up.workers()
    os.kill(before["host1-agent"], signal.SIGKILL)
    until(lambda: not is_alive(before["host1-agent"]))
    up.start_ready("-")
    after = up.pids()
    assert {name for name in SERVICES if after[name] != before[name]} == {"host1-agent"}
    assert up.workers() == workers
    assert all(is_alive(pid) for pid in workers)

    os.kill(after["controller1"], signal.SIGKILL)
    until(lambda: up.pids()["controller1"] != after["controller1"])
    assert up.stop() == 0
    assert not find_marked(up.fleet_id)
    assert not [pid for pid in workers if is_alive(pid)]


def test_a_fleet_that_has_grown_keeps_its_old_hosts_running(up: Up) -> None:
    up.start_ready("1").kill()
    assert up.process is not None
    up.process.wait()
    before = up.pids()
    up.start_ready("2")
    after = up.pids()
    assert {name: after[name] for name in before} == before
    assert set(after) == SERVICES


def test_a_second_up_on_the_folder_is_refused_in_one_line(up: Up) -> None:
    first = up.start_ready("1")
    second = subprocess.run(
        first.args, env=up.environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert second.returncode == 5
    assert second.stderr.startswith(f"fleetctl: another `fleetctl up` (pid {first.pid}) runs on {up.data_dir}")
    assert second.stderr.count("\n") == 1
    assert first.poll() is None


def test_a_smaller_fleet_is_refused_and_the_folder_stays_as_it_is(up: Up) -> None:
    up.start_ready("2")
    assert up.stop() == 0
    record = (up.data_dir / "up.json").read_text()
    assert up.start("1").wait(DEADLINE_SECONDS) == 5
    assert "cannot shrink to 1" in up.output.read_text()
    assert (up.data_dir / "up.json").read_text() == record


def test_a_recorded_port_that_another_program_took_is_named(up: Up) -> None:
    up.start_ready("1")
    assert up.stop() == 0
    port = json.loads((up.data_dir / "up.json").read_text())["system_block"]
    with socket.create_server(("127.0.0.1", port)):
        assert up.start("1").wait(DEADLINE_SECONDS) == 5
    output = up.output.read_text()
    assert f"port {port} of etcd is taken by another program" in output
    assert output.count("\n") == 1


def test_two_fleets_at_once_get_ports_of_their_own(up: Up, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Up(tmp_path / "other")
    up.start_ready("2")
    try:
        other.start_ready("2")
        records = [json.loads((each.data_dir / "up.json").read_text()) for each in (up, other)]
        blocks = [block for record in records for block in (record["system_block"], *record["host_blocks"])]
        assert len(blocks) == len(set(blocks)) == 6
    finally:
        other.clean_up()


def test_a_daemon_that_does_not_start_is_named_with_the_end_of_its_log_and_all_others_stop(up: Up) -> None:
    """Guards invariant 10."""
    assert up.start("1", FAKE_FAILS="controller1").wait(DEADLINE_SECONDS) == 1
    output = up.output.read_text()
    assert "controller1 does not stay up: it ended with exit code 1" in output
    assert "the sky is falling" in output
    assert "Traceback" not in output
    assert not find_marked(up.fleet_id)
    assert not [pid for pid in up.workers() if is_alive(pid)]


def test_a_failed_start_after_a_killed_up_touches_nothing_that_still_serves(up: Up) -> None:
    """Guards invariant 3."""
    up.start_ready("1").kill()
    assert up.process is not None
    up.process.wait()
    pids, workers = up.pids(), up.workers()
    os.kill(pids["controller1"], signal.SIGKILL)
    until(lambda: not is_alive(pids["controller1"]))
    assert up.start("-", FAKE_FAILS="controller1").wait(DEADLINE_SECONDS) == 1
    assert all(is_alive(pid) for name, pid in pids.items() if name != "controller1")
    assert all(is_alive(pid) for pid in workers)


def test_a_reader_of_the_output_that_goes_away_does_not_end_the_fleet(up: Up) -> None:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("run_up.py")), str(up.data_dir), "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=up.environment,
        text=True,
    )
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        process.stdout.close()
        for _ in range(2):
            pid = up.pids()["controller1"]
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: up.pids()["controller1"] != pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(up: Up) -> None:
    up.data_dir.write_text("a file")
    assert up.start("1").wait(DEADLINE_SECONDS) == 5
    output = up.output.read_text()
    assert str(up.data_dir) in output
    assert output.count("\n") == 1
