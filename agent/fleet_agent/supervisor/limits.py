"""What a launch asks of cgroup v2, as the texts its files take, and what their texts tell.

The files are those of the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from fleet_agent.supervisor.processes import UNKNOWN_EXIT, End
from fleet_agent.supervisor.protocol import Launch

NEEDED_CONTROLLERS = ("memory", "cpu", "pids")
NO_LIMIT = "max"
NEEDS_CGROUP = (
    "limits need a delegated cgroup: start fleet-supervisor, or `fleetctl up`, with --cgroup DIR, "
    "or drop --memory-limit, --cpu-limit and --pids-limit"
)
_PERIOD_MICROSECONDS = 100_000
_LEAST_QUOTA_MICROSECONDS = 1_000
"""The kernel takes no less."""
_OUT_OF_MEMORY = "killed by the kernel: out of memory"
_BY_THE_KERNEL = ("killed by SIGKILL", UNKNOWN_EXIT)


def asks_for_limits(launch: Launch) -> bool:
    return bool(launch.memory_max_bytes or launch.cpu_max_cores or launch.pids_max)


def texts_of(launch: Launch) -> dict[str, str]:
    """File → text, NO_LIMIT where there is none."""
    quota = max(_LEAST_QUOTA_MICROSECONDS, round(launch.cpu_max_cores * _PERIOD_MICROSECONDS))
    return {
        "memory.max": str(launch.memory_max_bytes or NO_LIMIT),
        "cpu.max": f"{quota} {_PERIOD_MICROSECONDS}" if launch.cpu_max_cores else NO_LIMIT,
        "pids.max": str(launch.pids_max or NO_LIMIT),
    }


def enabling(available: str, enabled: str) -> str:
    """For cgroup.subtree_control, from it and cgroup.controllers; "" where nothing is to be done."""
    wanted = [name for name in NEEDED_CONTROLLERS if name in available.split() and name not in enabled.split()]
    return " ".join(f"+{name}" for name in wanted)


def number_in(text: str, name: str) -> int:
    """Of a flat keyed file, such as memory.events; 0 where it is not there."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return 0


def with_kills(end: End, kills: int, memory_max_bytes: int) -> End:
    """How a worker ended in whose cgroup the kernel killed so many processes, because memory was short."""
    if not kills:
        return end
    limit = f" (limit {_size(memory_max_bytes)})" if memory_max_bytes else ""
    if end.reason in _BY_THE_KERNEL:
        return End(f"{_OUT_OF_MEMORY}{limit}")
    return End(f"{end.reason}, after a process of it was {_OUT_OF_MEMORY}{limit}", end.exit_code)


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"
