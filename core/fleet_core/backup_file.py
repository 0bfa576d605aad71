"""The file `fleetctl backup` writes and a restore reads: what etcd held at one revision.

Lines of JSON, so that it can be looked at: a header, one record a line, and the SHA-256 of all before it as the last one. Records
hold the environments of apps, so the file is its owner's alone (mode 0600).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_core.durable import write_durably

FORMAT = 1
"""Raised when a reader of the one before would misunderstand the file."""


class BackupFileError(Exception):
    """The file cannot be used; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    fleet_id: str
    era: int
    etcd_revision: int
    records: Mapping[str, bytes]
    """Key → value, as they lie in etcd."""
    taken_at: str = ""
    """RFC 3339, UTC, by the clock of who wrote the file; for people."""
    version: str = ""
    """Of the program that wrote it."""

    def digest(self) -> str:
        """Of what is restored: the same however often, and wherever, it is written to a file."""
        whole = hashlib.sha256()
        for key, value in sorted(self.records.items()):
            whole.update(b"%d %s %d " % (len(key), key.encode(), len(value)) + value)
        return whole.hexdigest()


def write_backup(path: Path, backup: Backup) -> None:
    """Replace `path`, or leave it as it is. Raises OSError."""
    write_durably(path, encode(backup))


def read_backup(path: Path) -> Backup:
    """Raises BackupFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackupFileError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decode(content)
    except BackupFileError as error:
        raise BackupFileError(f"{path}: {error}") from None


def encode(backup: Backup) -> bytes:
    header = {
        "fleetctl_backup": FORMAT,
        "taken_at": backup.taken_at,
        "version": backup.version,
        "fleet_id": backup.fleet_id,
        "era": backup.era,
        "etcd_revision": backup.etcd_revision,
        "records": len(backup.records),
    }
    lines = [header, *(_record(key, value) for key, value in sorted(backup.records.items()))]
    content = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    last = {"sha256": hashlib.sha256(content).hexdigest()}
    return content + json.dumps(last).encode() + b"\n"


def decode(content: bytes) -> Backup:
    """Raises BackupFileError."""
    body, _, rest = content.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        header = json.loads(content.partition(b"\n")[0])
        version = header["fleetctl_backup"]
    except (ValueError, KeyError, TypeError) as error:
        raise BackupFileError("it is not a backup of `fleetctl backup`") from error
    if version != FORMAT:
        raise BackupFileError(f"its format is {version}, this version reads {FORMAT}: use the fleetctl that wrote it")
    try:
        intact = json.loads(rest)["sha256"] == hashlib.sha256(body).hexdigest()
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise BackupFileError("it is damaged or cut off: its digest is not that of its content")
    try:
        return _parse(header, [json.loads(line) for line in body.splitlines()[1:]])
    except (ValueError, KeyError, TypeError) as error:
        raise BackupFileError(f"its digest is right and its content is not: {error}") from error


def _parse(header: dict[str, Any], lines: list[dict[str, str]]) -> Backup:
    records = {line["key"]: _value(line) for line in lines}
    if len(records) != header["records"]:
        raise ValueError(f"{header['records']} records were written and {len(records)} are here")
    return Backup(
        fleet_id=str(header["fleet_id"]),
        era=int(header["era"]),
        etcd_revision=int(header["etcd_revision"]),
        records=records,
        taken_at=str(header["taken_at"]),
        version=str(header["version"]),
    )


def _record(key: str, value: bytes) -> dict[str, str]:
    try:
        return {"key": key, "value": value.decode()}
    except UnicodeDecodeError:
        return {"key": key, "base64": base64.b64encode(value).decode()}


def _value(line: Mapping[str, str]) -> bytes:
    return line["value"].encode() if "value" in line else base64.b64decode(line["base64"], validate=True)
