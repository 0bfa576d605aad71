"""What a supervisor must know to go on with the workers of the one before it: a file for each worker.

The last whole line of a file counts: a record is added to the one before, as that takes a fraction of replacing a file, on the
way from a crash to the next process. A file that has become long is replaced, by rename, but not on that way while it can wait:
a file system may then write to its disk first. There is no fsync: the journal lies in
/run and must survive the end of a process, not of the machine, with which the workers end too.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.life import Life
from fleet_agent.supervisor.processes import Place
from fleet_agent.supervisor.protocol import Key, ProtocolError, key_from_json, launch_from_json

_VERSION = 1
_SUFFIX = ".json"
_LONG_BYTES = 16 * 1024
"""A file of this length is replaced at the next record that nobody waits for."""
_LONGEST_BYTES = 256 * 1024
"""At any."""


_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Record:
    """A worker's life, and where its pid means something."""

    life: Life
    place: Place


def file_stem(key: Key) -> str:
    """The name of a worker's files in the runtime folder. Two keys never share one, as an app's name holds no dot."""
    return f"{key.app}.{key.slot}.{key.generation}"


class Journal:
    """The records in `folder`, which it makes."""

    def __init__(self, folder: Path, place: Place) -> None:
        self._folder = folder
        self._place = _encode(asdict(place))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, life: Life, *, waited_for: bool = False) -> None:
        """`waited_for`: a process is released after it. Raises OSError; the record before still stands."""
        record = f"\n{self._content(life)}\n".encode()  # begins a line, whatever the supervisor before left unfinished
        path = self._path(life.key)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.lseek(descriptor, 0, os.SEEK_END) < (_LONGEST_BYTES if waited_for else _LONG_BYTES):
                _write_all(descriptor, record)
                return
        finally:
            os.close(descriptor)
        beside = f"{path}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, record)
        finally:
            os.close(descriptor)
        os.rename(beside, path)  # noqa: PTH104 - on the way from a crash to the next process

    def remove(self, key: Key) -> None:
        """Raises OSError."""
        Path(self._path(key)).unlink(missing_ok=True)

    def read(self) -> list[Record]:
        """All records. One that cannot be understood is set aside as `*.bad`, with a line on stderr."""
        records = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                line = _last_whole_line(path.read_bytes())
                if line:
                    records.append(_record_from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError, ProtocolError) as error:
                aside = path.with_suffix(".bad")
                path.replace(aside)
                complain(f"journal record set aside as {aside}: {error}")
        return records

    def _content(self, life: Life) -> str:
        plain = life._asdict()
        del plain["launch"], plain["wanted"]
        plain["key"] = life.key._asdict()
        wanted = "null" if life.wanted is None else life.wanted.text
        rest = _encode(plain)[1:]
        return f'{{"version":{_VERSION},"place":{self._place},"life":{{"launch":{life.launch.text},"wanted":{wanted},{rest}}}'

    def _path(self, key: Key) -> str:
        return f"{self._folder}/{file_stem(key)}{_SUFFIX}"


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _last_whole_line(content: bytes) -> bytes:
    """b"" where there is none: the first record was not finished, and nothing was released."""
    if b"\n" not in content:  # as supervisors wrote it that replaced each record
        return content
    return next((line for line in reversed(content.split(b"\n")[:-1]) if line), b"")


def _record_from_json(value: dict[str, Any]) -> Record:
    if value["version"] != _VERSION:
        raise ValueError(f"version {value['version']} is not {_VERSION}")
    fields = {name: value["life"][name] for name in Life._fields if name in value["life"]}
    fields["key"] = key_from_json(fields["key"])
    fields["launch"] = launch_from_json(fields["launch"])
    fields["wanted"] = None if fields["wanted"] is None else launch_from_json(fields["wanted"])
    fields["crashes"] = tuple(fields["crashes"])
    return Record(Life(**fields), Place(**value["place"]))
