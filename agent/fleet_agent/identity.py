"""What makes this host this host: its uid, minted once, and its boot."""

import fcntl
import os
import uuid
from pathlib import Path

from fleet_core.durable import write_durably

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StateDirInUseError(Exception):
    """Another fleet-agent holds the state folder."""


def host_uid(state_dir: Path) -> str:
    """Read from `state_dir`, or minted there. Raises OSError, ValueError."""
    path = state_dir / "host-uid"
    try:
        uid = path.read_text().strip()
    except FileNotFoundError:
        uid = str(uuid.uuid4())
        write_durably(path, f"{uid}\n".encode())
        return uid
    try:
        return str(uuid.UUID(uid))
    except ValueError:
        text = f"{path} is damaged: write back the uid that `fleetctl host ls -o json` shows for this host, or remove the file"
        raise ValueError(f"{text} to join as a new one") from None


def boot_id() -> str:
    """Raises OSError."""
    return _BOOT_ID.read_text().strip()


def lock_state_dir(state_dir: Path) -> int:
    """A descriptor that holds the folder for this process until it is closed. Raises StateDirInUseError, OSError."""
    descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateDirInUseError(f"another fleet-agent uses {state_dir}") from None
    return descriptor
