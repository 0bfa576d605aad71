"""Whether this host's folders can still be written, in words for `status`."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_LOG = logging.getLogger(__name__)
_LEAST_FREE_BYTES = 1024 * 1024
"""Less than that and the next write may fail."""
_LOOK_SECONDS = 10.0
"""Between two looks at folders that were well, as each costs an idle agent more than the question."""
_CONSEQUENCES = {
    "state_dir": "what runs runs on, and nothing new is obeyed until it can be written",
    "runtime_dir": "workers run on, and none can be started until there is space",
    "log_dir": "workers run on, and what they print may be lost until there is space",
}


class Disks:
    def __init__(
        self,
        folders: Mapping[str, Path],
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folders`: by the name of their setting."""
        self._folders = folders
        self._statvfs = statvfs
        self._clock = clock
        self._due = 0.0
        self._refusals: dict[str, str] = {}
        self._told: frozenset[str] = frozenset()

    def refused(self, setting: str, error: OSError | None) -> None:
        """The last write there failed; None: it did not."""
        if error is None:
            self._refusals.pop(setting, None)
        else:
            self._refusals[setting] = error.strerror or str(error)

    def troubles(self) -> list[str]:
        """One sentence a folder; a new one is logged."""
        if not self._refusals and not self._told:
            now = self._clock()
            if now < self._due:
                return []
            self._due = now + _LOOK_SECONDS
        troubles = {}
        for setting, folder in self._folders.items():
            reason = self._refusals.get(setting) or self._fullness(folder)
            if reason:
                troubles[setting] = f"{folder} ({setting}) cannot be written: {reason}; {_CONSEQUENCES[setting]}"
        for setting in troubles.keys() - self._told:
            _LOG.error("%s", troubles[setting])
        for setting in self._told - troubles.keys():
            _LOG.info("%s can be written again", self._folders[setting])
        self._told = frozenset(troubles)
        return list(troubles.values())

    def _fullness(self, folder: Path) -> str:
        try:
            found = self._statvfs(folder)
        except OSError:
            return ""  # not made yet: whoever writes there will say so
        free = found.f_bavail * found.f_frsize
        if free < _LEAST_FREE_BYTES:
            return f"its disk is full ({free // 1024} KiB left)"
        return "its disk has no inode left" if found.f_files and not found.f_favail else ""
