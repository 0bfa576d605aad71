"""When folders are looked at, and what is said of them."""

import os
from pathlib import Path

from fleet_agent.disks import Disks

FOLDER = Path("/var/lib/fleet/agent")


class Disk:
    def __init__(self) -> None:
        self.free = 10**9
        self.looks = 0
        self.time = 100.0
        self.disks = Disks({"state_dir": FOLDER}, self.statvfs, lambda: self.time)

    def statvfs(self, folder: Path) -> os.statvfs_result:
        assert folder == FOLDER
        self.looks += 1
        return os.statvfs_result((4096, 4096, 10**6, self.free // 4096, self.free // 4096, 1000, 500, 500, 0, 255))


def test_a_disk_that_is_well_is_looked_at_now_and_then() -> None:
    disk = Disk()
    for _ in range(5):
        assert disk.disks.troubles() == []
    assert disk.looks == 1
    disk.free = 0
    assert disk.disks.troubles() == []
    disk.time += 10
    (said,) = disk.disks.troubles()
    assert said.startswith(f"{FOLDER} (state_dir) cannot be written: its disk is full (0 KiB left); ")


def test_one_that_is_not_well_is_looked_at_each_time() -> None:
    disk = Disk()
    disk.free = 0
    assert disk.disks.troubles()
    disk.free = 10**9
    assert disk.disks.troubles() == []


def test_a_refused_write_is_told_at_once_and_until_one_succeeds() -> None:
    disk = Disk()
    assert disk.disks.troubles() == []
    disk.disks.refused("state_dir", OSError(30, "Read-only file system"))
    (said,) = disk.disks.troubles()
    assert "Read-only file system" in said
    disk.disks.refused("state_dir", None)
    assert disk.disks.troubles() == []
