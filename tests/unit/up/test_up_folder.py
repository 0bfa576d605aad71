"""The data folder and the folder of its sockets, and the daemons' logs."""

import os
from pathlib import Path

import pytest

from fleetctl.up.errors import UpError
from fleetctl.up.folder import LockedFolder, runtime_folder
from fleetctl.up.layout import Layout
from fleetctl.up.logs import last_lines, open_log, rotate_if_large


def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", tmp_path / "sockets")


def test_the_folder_of_sockets_is_private(tmp_path: Path) -> None:
    with runtime_folder(layout(tmp_path)):
        assert (tmp_path / "sockets").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_sockets_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    (tmp_path / "sockets").chmod(0o755)
    with pytest.raises(UpError, match="not a private folder"), runtime_folder(layout(tmp_path)):
        pass


def test_a_link_in_place_of_the_folder_of_sockets_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "sockets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UpError, match="sockets"), runtime_folder(layout(tmp_path)):
        pass


def test_a_folder_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    first = LockedFolder(tmp_path)
    with pytest.raises(UpError, match=f"pid {os.getpid()}"):
        LockedFolder(tmp_path)
    first.close()
    LockedFolder(tmp_path).close()


def test_a_run_that_did_not_end_is_known_to_the_next(tmp_path: Path) -> None:
    folder = LockedFolder(tmp_path)
    assert not folder.was_interrupted()
    folder.mark_running()
    assert folder.was_interrupted()
    folder.mark_ended()
    assert not folder.was_interrupted()
    folder.close()


def test_a_run_before_the_last_boot_left_nothing_running(tmp_path: Path) -> None:
    folder = LockedFolder(tmp_path)
    (tmp_path / "up.running").write_text("00000000-0000-0000-0000-000000000000\n")
    assert not folder.was_interrupted()
    folder.close()


def test_a_large_log_is_moved_aside_under_the_feet_of_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "log" / "agent.log"
    writer = open_log(path)
    os.write(writer, b"old\n" * 30)
    assert rotate_if_large(path, limit=100)
    os.write(writer, b"new\n")
    os.close(writer)
    assert path.read_text() == "new\n"
    assert path.with_name("agent.log.1").read_text() == "old\n" * 30
    assert not rotate_if_large(path, limit=100)


def test_the_last_lines_of_a_log_leave_empty_ones_out(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    assert last_lines(path) == []
    path.write_text("".join(f"line {number}\n\n" for number in range(5000)))
    assert last_lines(path, 2) == ["line 4998", "line 4999"]
