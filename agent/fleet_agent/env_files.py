"""Files of KEY=VALUE lines that join a worker's environment: their form (pure), and a reader that sees when one changes."""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`"}


class EnvFileError(Exception):
    """A file cannot be read or understood; the text names it, and the line."""


def parse_env_file(text: str) -> dict[str, str]:
    """The variables of one file. Raises EnvFileError, without the file's name.

    A line is `KEY=VALUE`, with `export ` before it or not; empty lines and those that begin with # are left out. Within single
    quotes a value is taken as it stands, within double quotes the escapes of a shell and \\n, \\r, \\t count, and both may go on
    over several lines. Without quotes, spaces around the value and what follows ` #` are no part of it. Nothing is expanded.
    """
    variables: dict[str, str] = {}
    at, number = 0, 1
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].strip()
        if not line or line.startswith("#"):
            at, number = end + 1, number + 1
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            raise EnvFileError(f"line {number} is not KEY=VALUE")
        if value[:1] in ("'", '"'):
            begin = text.index(value[0], text.index("=", at)) + 1
            value, end = _quoted(text, begin, value[0], number)
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
        if "\0" in value:
            raise EnvFileError(f"line {number} holds a NUL byte")
        variables[name] = value
        number += text.count("\n", at, end) + 1
        at = end + 1
    return variables


def _quoted(text: str, begin: int, quote: str, number: int) -> tuple[str, int]:
    """The value that begins at `begin`, and where its last line ends."""
    value: list[str] = []
    at = begin
    while at < len(text) and text[at] != quote:
        if quote == '"' and text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPES:
            value.append(_ESCAPES[text[at + 1]])
            at += 2
            continue
        value.append(text[at])
        at += 1
    if at >= len(text):
        raise EnvFileError(f"the quote that begins in line {number} has no end")
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    rest = text[at + 1 : end].strip()
    if rest and not rest.startswith("#"):
        raise EnvFileError(f"line {number}: something follows the closing quote")
    return "".join(value), end


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
        return _Read(stamp, parse_env_file(content.decode()))
    except UnicodeDecodeError:
        return _Read(stamp, {}, "is not UTF-8")
    except EnvFileError as error:
        return _Read(stamp, {}, str(error))
