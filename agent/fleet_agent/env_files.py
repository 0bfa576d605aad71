"""Files of KEY=VALUE lines that join a worker's environment: a reader that sees when one changes."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet_core.env_lines import EnvLinesError, parse_env_lines

_MOST_BYTES = 1024 * 1024


class EnvFileError(Exception):
    """A file cannot be read or understood; the text names it, and the line."""


@dataclass(frozen=True)
class _Read:
    stamp: tuple[int, int, int, int]
    variables: Mapping[str, str]
    problem: str = ""


class EnvFiles:
    """Reads env files; one that did not change since is not read again."""

    def __init__(self) -> None:
        self._read: dict[Path, _Read] = {}

    def variables(self, names: Sequence[str], cwd: str) -> dict[str, str]:
        """Of all these files, later ones winning. Raises EnvFileError."""
        merged: dict[str, str] = {}
        for name in names:
            path = Path(cwd, name)
            try:
                found = self._file(path)
            except OSError as error:
                self._read.pop(path, None)
                raise EnvFileError(f"env file {path}: {error.strerror}") from error
            if found.problem:
                raise EnvFileError(f"env file {path}: {found.problem}")
            merged.update(found.variables)
        return merged

    def _file(self, path: Path) -> _Read:
        status = path.stat()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._read.get(path)
        if known is None or known.stamp != stamp:
            known = self._read[path] = _read_file(path, stamp)
        return known


def _read_file(path: Path, stamp: tuple[int, int, int, int]) -> _Read:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _Read(stamp, {}, "is not a regular file")
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        return _Read(stamp, {}, f"is longer than {_MOST_BYTES} bytes")
    try:
        return _Read(stamp, parse_env_lines(content.decode()))
    except UnicodeDecodeError:
        return _Read(stamp, {}, "is not UTF-8")
    except EnvLinesError as error:
        return _Read(stamp, {}, str(error))
