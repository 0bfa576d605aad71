"""The descriptors one service left with its service manager, to get them back after a restart (sd_pid_notify_with_fds(3))."""

import os
import select
import stat

MAX_DESCRIPTORS = 4096
"""Of one service: FileDescriptorStoreMax= of our systemd units."""
_MAX_NAME = 255
_UNNAMED = "stored"
_BROKEN = select.POLLHUP | select.POLLERR | select.POLLNVAL


class DescriptorStore:
    """Owns the descriptors put into it. Like systemd's, it drops those whose other end is gone, and those it has already."""

    def __init__(self) -> None:
        self._stored: list[tuple[str, int]] = []

    def __len__(self) -> int:
        return len(self._stored)

    def add(self, name: str, descriptors: tuple[int, ...]) -> int:
        """Take `descriptors` over; returns how many were kept."""
        if not 0 < len(name) <= _MAX_NAME or ":" in name or not name.isascii() or not name.isprintable():
            name = _UNNAMED
        kept = 0
        for descriptor in descriptors:
            if len(self._stored) >= MAX_DESCRIPTORS:
                self.drop_broken()
            if len(self._stored) >= MAX_DESCRIPTORS or self._has(name, descriptor):
                os.close(descriptor)
            else:
                self._stored.append((name, descriptor))
                kept += 1
        return kept

    def remove(self, name: str) -> None:
        """Close every descriptor of that name."""
        self._keep([stored[0] != name for stored in self._stored])

    def drop_broken(self) -> None:
        """Close those that poll(2) reports hung up or in error."""
        poll = select.poll()
        for _, descriptor in self._stored:
            poll.register(descriptor, 0)
        broken = {descriptor for descriptor, events in poll.poll(0) if events & _BROKEN}
        self._keep([stored[1] not in broken for stored in self._stored])

    def items(self) -> list[tuple[str, int]]:
        """(name, descriptor), oldest first; the store stays their owner."""
        return list(self._stored)

    def close(self) -> None:
        self._keep([False] * len(self._stored))

    def _keep(self, keep: list[bool]) -> None:
        """Keep the descriptors marked true, close the others."""
        kept = []
        for stored, wanted in zip(self._stored, keep, strict=True):
            if wanted:
                kept.append(stored)
            else:
                os.close(stored[1])
        self._stored = kept

    def _has(self, name: str, descriptor: int) -> bool:
        """Only of a socket does the inode tell that it is the same open file (kcmp(2) needs more rights)."""
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode):
            return False
        return any(name == other and os.path.sameopenfile(descriptor, stored) for other, stored in self._stored)
