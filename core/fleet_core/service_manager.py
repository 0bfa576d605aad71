"""The service-manager protocol, the service's side: sd_notify(3), and the fd store of sd_pid_notify_with_fds(3).

systemd speaks it, and `fleetctl up` speaks it to its children too. Standard library only: the supervisor uses it.
"""

import array
import contextlib
import os
import socket

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


def endpoint() -> socket.socket:
    """For many messages, the caller's to close. One for each would cost twice as much while a supervisor starts many workers: to
    close one has the kernel search the descriptors that are on their way between processes (unix(7), SCM_RIGHTS)."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.settimeout(1.0)
    return made


def notify(*assignments: str, descriptors: tuple[int, ...] = (), through: socket.socket | None = None) -> bool:
    """Send "READY=1", "STATUS=…", "FDSTORE=1", "FDNAME=…" to the service manager, with `descriptors` attached.

    Returns False where there is no service manager, or it does not listen: the service goes on without it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    ancillary = []
    if descriptors:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        with contextlib.nullcontext(through) if through is not None else endpoint() as sender:
            sender.sendmsg(["\n".join(assignments).encode()], ancillary, 0, address)
    except OSError:
        return False
    return True


def store(name: str, *descriptors: int, through: socket.socket | None = None) -> bool:
    """Put descriptors into the fd store: they come back from `take_stored` after a restart. `name` must hold no colon."""
    return notify("FDSTORE=1", f"FDNAME={name}", descriptors=descriptors, through=through)


def forget(name: str, *, through: socket.socket | None = None) -> bool:
    """Remove every descriptor of that name from the fd store."""
    return notify("FDSTOREREMOVE=1", f"FDNAME={name}", through=through)


def take_stored() -> dict[str, list[int]]:
    """The descriptors the service manager passed in, by name; each is the caller's to close. Empty when called again."""
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return {}
    stored: dict[str, list[int]] = {}
    for index in range(int(count)):
        descriptor = _FIRST_DESCRIPTOR + index
        os.set_inheritable(descriptor, False)
        name = names[index] if index < len(names) else "unknown"
        stored.setdefault(name, []).append(descriptor)
    return stored


def watchdog_seconds() -> float | None:
    """How often "WATCHDOG=1" must be sent, at the latest (sd_watchdog_enabled(3)); None: nobody waits for it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and int(text) else None
