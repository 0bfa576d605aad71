"""The data folder and the folder of its sockets, and the daemons' logs."""

import os
from pathlib import Path

import pytest

from fleetctl.up.claims import PortClaims
from fleetctl.up.errors import UpError
from fleetctl.up.folder import LockedFolder, memory_of, runtime_folder
from fleetctl.up.layout import Layout
from fleetctl.up.logs import last_lines, open_log, rotate_if_large
from fleetctl.up.plan import settle
from fleetctl.up.settings import Wanted


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


MOUNTS = "/dev/vda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n"


def mounts(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mounts"
    path.write_text(text)
    return path


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm to write to")
def test_runtime_files_of_root_and_of_services_lie_in_memory(tmp_path: Path) -> None:
    assert memory_of(0, mounts(tmp_path, MOUNTS)) == "/dev/shm"
    assert memory_of(999, mounts(tmp_path, MOUNTS)) == "/dev/shm"
    if os.access("/run", os.W_OK):
        assert memory_of(0, mounts(tmp_path, f"{MOUNTS}tmpfs /run tmpfs rw 0 0\n")) == "/run"


def test_those_of_an_ordinary_user_do_not_as_the_end_of_a_login_removes_them(tmp_path: Path) -> None:
    assert memory_of(1000, mounts(tmp_path, MOUNTS)) == ""


def test_a_place_that_is_not_in_memory_is_not_taken_for_it(tmp_path: Path) -> None:
    assert memory_of(0, mounts(tmp_path, "/dev/vda / ext4 rw 0 0\n")) == ""
    assert memory_of(0, mounts(tmp_path, f"{MOUNTS}/dev/vda /dev/shm ext4 rw 0 0\n")) == ""
    assert memory_of(0, tmp_path / "none") == ""


@pytest.mark.parametrize("memory", ["", "/elsewhere"])
def test_what_an_interrupted_run_left_alive_is_looked_for_where_that_run_had_its_sockets(
    tmp_path: Path, memory: str
) -> None:
    folder = LockedFolder(tmp_path)
    with PortClaims() as claims:
        first = settle(folder, Wanted(), claims)
    folder.write_settings(first.model_copy(update={"memory": memory}))
    folder.mark_running()
    with PortClaims() as claims:
        assert settle(folder, Wanted(), claims).memory == memory
    folder.mark_ended()
    with PortClaims() as claims:
        assert settle(folder, Wanted(), claims).memory == first.memory == memory_of(os.getuid())
    folder.close()


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
