"""One cgroup v2 folder for each host below the one that `up --cgroup` names, with the controllers that limits need."""

import contextlib
import errno
from collections.abc import Iterable
from pathlib import Path

from fleetctl.up.errors import UpError

_CONTROLLERS = ("memory", "cpu", "pids")
_ADVICE = "name an empty one that you may write to, for example /sys/fs/cgroup/fleet as root, or --cgroup '' for none"


def make_host_cgroups(folder: Path, hosts: Iterable[str]) -> None:
    """Make what is missing. A controller the kernel does not have here is left out: a supervisor refuses limits that need it, in
    words. Raises UpError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UpError(f"cgroup {folder} cannot be made ({error.strerror}): {_ADVICE}") from error
    available = folder / "cgroup.controllers"
    if not available.is_file():
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise UpError(f"{folder} is no cgroup v2 folder: {_ADVICE}")
    control = folder / "cgroup.subtree_control"
    try:
        present = available.read_text().split()
        text = " ".join(f"+{name}" for name in _CONTROLLERS if name in present)
        if text:
            control.write_text(text)
        for host in hosts:
            (folder / host).mkdir(exist_ok=True)
    except OSError as error:
        reason = "it holds processes itself" if error.errno == errno.EBUSY else error.strerror
        raise UpError(f"cgroup {folder} cannot be divided among the hosts ({reason}): {_ADVICE}") from error


def remove_host_cgroups(folder: Path, hosts: Iterable[str]) -> None:
    """Those that nothing lives in."""
    for host in hosts:
        with contextlib.suppress(OSError):
            (folder / host).rmdir()
