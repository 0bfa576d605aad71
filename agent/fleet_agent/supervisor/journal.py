"""What a supervisor must know to go on with the workers of the one before it: a file for each worker.

A record is replaced by rename, so that a reader finds the old one or the new one. There is no fsync: the journal lies in /run and
must survive the end of a process, not of the machine, with which the workers end too.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet_agent.supervisor.life import Life
from fleet_agent.supervisor.processes import Place
from fleet_agent.supervisor.protocol import Key, ProtocolError, key_from_json, launch_from_json, launch_to_json

_VERSION = 1
_SUFFIX = ".json"


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
        self._place = place
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, life: Life) -> None:
        """Raises OSError; the record before still stands."""
        record = {"version": _VERSION, "place": asdict(self._place), "life": _life_to_json(life)}
        path = self._path(life.key)
        beside = f"{path}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            content = json.dumps(record, separators=(",", ":")).encode()
            while content:
                content = content[os.write(descriptor, content) :]
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
                records.append(_record_from_json(json.loads(path.read_bytes())))
            except (ValueError, KeyError, TypeError, ProtocolError) as error:
                aside = path.with_suffix(".bad")
                path.replace(aside)
                print(f"fleet-supervisor: journal record set aside as {aside}: {error}", file=sys.stderr)
        return records

    def _path(self, key: Key) -> str:
        return f"{self._folder}/{file_stem(key)}{_SUFFIX}"


def _life_to_json(life: Life) -> dict[str, Any]:
    wanted = None if life.wanted is None else launch_to_json(life.wanted)
    return {**vars(life), "key": life.key._asdict(), "launch": launch_to_json(life.launch), "wanted": wanted}


def _record_from_json(value: dict[str, Any]) -> Record:
    if value["version"] != _VERSION:
        raise ValueError(f"version {value['version']} is not {_VERSION}")
    fields = {name: value["life"][name] for name in Life.__dataclass_fields__ if name in value["life"]}
    fields["key"] = key_from_json(fields["key"])
    fields["launch"] = launch_from_json(fields["launch"])
    fields["wanted"] = None if fields["wanted"] is None else launch_from_json(fields["wanted"])
    fields["crashes"] = tuple(fields["crashes"])
    return Record(Life(**fields), Place(**value["place"]))
