"""Where this machine has cgroup v2, for tests that need the kernel's own."""

import os
from pathlib import Path


def writable_mount() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            return Path(where)
    return None
