"""What a process tree uses, read of this test's own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from fleet_agent import process_tree
from fleet_agent.probes import boot_time
from fleet_agent.process_tree import Process, ProcessTable, Strangers, UsageMeter, open_files, read_processes


def test_usage_is_measured_over_the_whole_tree() -> None:
    meter = UsageMeter()
    me = os.getpid()
    assert me in read_processes().tree(os.getppid())
    alone = meter.measure({me: 0.0}, 10.0)[me]
    assert alone.rss_bytes > 1_000_000
    assert alone.threads >= 1
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            both = meter.measure({me: 0.0}, 11.0)[me]
        finally:
            child.kill()
    assert both.threads == alone.threads + 1
    assert both.open_files > alone.open_files
    assert both.cpu_percent >= 0.0
    assert meter.measure({}, 12.0) == {}


def test_the_first_sample_of_a_process_counts_from_its_start() -> None:
    now = boot_time()
    usage = UsageMeter().measure({os.getpid(): now - 100}, now)[os.getpid()]
    assert usage.cpu_percent == pytest.approx(usage.cpu_seconds)


def test_descriptors_are_counted_and_those_of_nobody_are_none() -> None:
    before = open_files(os.getpid())
    reading, writing = os.pipe()
    try:
        assert open_files(os.getpid()) == before + 2
    finally:
        os.close(reading)
        os.close(writing)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert open_files(gone.pid) == 0


def test_strangers_are_read_once_and_what_is_born_into_a_tree_is_found() -> None:
    strangers = Strangers()
    with (
        subprocess.Popen(["sleep", "60"]) as stranger,
        subprocess.Popen(["sh", "-c", "read x; sleep 60 & wait"], stdin=-1) as root,
    ):
        try:
            assert stranger.pid in strangers.read([root.pid]).processes
            assert stranger.pid not in strangers.read([root.pid]).processes
            assert root.stdin is not None
            root.stdin.write(b"\n")
            root.stdin.flush()
            tree = _when(lambda: tree if len(tree := strangers.read([root.pid]).tree(root.pid)) > 1 else set())
            assert root.pid in tree
            # A process that was there before may become a root.
            assert strangers.read([root.pid, stranger.pid]).tree(stranger.pid) == {stranger.pid}
        finally:
            for pid in (*strangers.read([root.pid]).tree(root.pid), stranger.pid):
                os.kill(pid, signal.SIGKILL)


def test_strangers_are_forgotten_when_numbers_begin_again_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = iter([100, 200, 50, 60])
    monkeypatch.setattr(process_tree, "_newest_pid", lambda: next(newest))
    strangers = Strangers()
    me = os.getpid()
    read = [me in strangers.read([]).processes for _ in range(4)]
    assert read == [True, False, True, False]


def _when(look: Callable[[], set[int]]) -> set[int]:
    deadline = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_processor_time_of_children_that_have_ended_is_counted() -> None:
    burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    with subprocess.Popen(["sh", "-c", f"sh -c '{burn}'; echo done; read x"], stdin=-1, stdout=-1) as root:
        assert root.stdout is not None
        assert root.stdout.readline() == b"done\n"
        usage = UsageMeter().measure({root.pid: boot_time() - 100}, boot_time())[root.pid]
        root.kill()
    assert usage.cpu_seconds >= 0.05


def test_processor_time_never_goes_back_when_an_orphan_takes_its_own_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def table(root: float, orphan: float | None) -> ProcessTable:
        processes = {1000: Process(1000, 1, 1000, root, 4096, 1)}
        if orphan is not None:
            processes[1001] = Process(1001, 1, 1000, orphan, 4096, 1)
        return ProcessTable(processes, {}, {1000: list(processes)})

    tables = iter([table(1.0, 9.0), table(2.0, None), table(3.5, None)])
    monkeypatch.setattr(Strangers, "read", lambda _strangers, _roots: next(tables))
    meter = UsageMeter()
    measured = [meter.measure({1000: 0.0}, at)[1000] for at in (10.0, 20.0, 30.0)]
    assert [usage.cpu_seconds for usage in measured] == [10.0, 10.0, 11.5]
    assert [usage.cpu_percent for usage in measured] == [100.0, 0.0, 15.0]
