"""The file of a backup is read as it was written, or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_core.backup_file import Backup, BackupFileError, decode, encode, read_backup, write_backup

BACKUP = Backup("f1", 3, 120, {"/fleet/v1/apps/web": b'{"name": "web"}', "/fleet/v1/x": b"\xff\x00"}, "2026-01-01", "1")


@given(st.dictionaries(st.text(min_size=1), st.binary(), max_size=5))
def test_every_key_and_value_comes_back(records: dict[str, bytes]) -> None:
    backup = Backup("f1", 1, 2, records)
    assert decode(encode(backup)) == backup
    assert decode(encode(backup)).digest() == backup.digest()


@given(st.data())
def test_no_change_of_a_byte_goes_unnoticed(data: st.DataObject) -> None:
    content = bytearray(encode(BACKUP))
    place = data.draw(st.integers(0, len(content) - 2))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BackupFileError):
        decode(bytes(content))


@given(st.integers(0, len(encode(BACKUP)) - 2))
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(BackupFileError):
        decode(encode(BACKUP)[:length])


def test_the_file_is_its_owners_alone_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_text("before")
    write_backup(path, BACKUP)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_backup(path) == BACKUP
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_bytes(encode(BACKUP).replace(b'"fleetctl_backup": 1', b'"fleetctl_backup": 2'))
    with pytest.raises(BackupFileError, match=r"its format is 2, this version reads 1"):
        read_backup(path)
    with pytest.raises(BackupFileError, match="cannot be read: No such file"):
        read_backup(tmp_path / "none")
