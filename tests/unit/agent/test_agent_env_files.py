"""Env files: later ones win, and a changed file is read anew."""

import os
from pathlib import Path

import pytest

from fleet_agent.accounts import find_account
from fleet_agent.env_files import EnvFileError, EnvFiles


def test_later_files_win_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    files = EnvFiles()
    (tmp_path / "one").write_text("A=1\nB=1")
    (tmp_path / "two").write_text("B=2")
    names = ("one", str(tmp_path / "two"))
    assert files.variables(names, str(tmp_path)) == {"A": "1", "B": "2"}
    (tmp_path / "two").write_text("C=3\n")
    assert files.variables(names, str(tmp_path)) == {"A": "1", "B": "1", "C": "3"}


def test_a_file_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    files = EnvFiles()
    with pytest.raises(EnvFileError, match=r"env file .*/\.env: No such file"):
        files.variables([".env"], str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EnvFileError, match="not a regular file"):
        files.variables(["pipe"], str(tmp_path))
    (tmp_path / "binary").write_bytes(b"A=\xff")
    with pytest.raises(EnvFileError, match="not UTF-8"):
        files.variables(["binary"], str(tmp_path))


def test_an_account_brings_its_home_and_a_number_without_an_entry_none() -> None:
    root = find_account("root")
    assert root is not None
    assert root == find_account("0")
    assert root.variables()["LOGNAME"] == "root"
    stranger = find_account("54321")
    assert stranger is not None
    assert (stranger.uid, stranger.variables()) == (54321, {"HOME": "/"})
    assert find_account("nobody-of-that-name") is None
