"""Where this machine keeps the cgroup of a service, in the version 2 tree that workers' limits need."""

from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")


def cgroup2_mount(mounts: str) -> Path | None:
    """Of `/proc/self/mounts`: /sys/fs/cgroup, on a hybrid host /sys/fs/cgroup/unified; None on one of version 1 alone. Pure."""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] == "cgroup2":
            return Path(fields[1].replace("\\040", " "))
    return None


def service_cgroup(unit: str) -> Path | None:
    """The folder that systemd makes for a service of the system slice while it runs. Raises OSError."""
    mount = cgroup2_mount(_MOUNTS.read_text())
    return mount / "system.slice" / f"{unit}.service" if mount is not None else None
