"""What a process tree uses, read of this test's own."""

import os
import subprocess

import pytest

from fleet_agent.probes import boot_time
from fleet_agent.process_tree import UsageMeter, open_files, read_processes


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
