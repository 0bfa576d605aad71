"""What workers say, as values, and what they inherit."""

import os
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from fleet_agent.supervisor import channels, watchdog
from fleet_agent.supervisor import kept as kept_module
from fleet_agent.supervisor.channels import Lines
from fleet_agent.supervisor.contact import Places, places
from fleet_agent.supervisor.kept import Kept, copy_from, stop_listening
from fleet_agent.supervisor.listeners import Listeners, Shared
from fleet_agent.supervisor.loop import Loop
from fleet_agent.supervisor.notify import NotifySocket, Said, understand
from fleet_agent.supervisor.protocol import Launch, ProtocolError
from fleet_agent.supervisor.requests import launch_of
from fleet_agent.supervisor.watchdog import Watchdog


def test_a_message_of_several_lines_is_understood_and_what_is_unknown_is_dropped() -> None:
    said = understand(Said(), b"RELOADING=1\nMAINPID=1\nSTATUS=up = and\x1b[31m running\nREADY=1\nWATCHDOG=1\nX_Y=\xff")
    assert said == Said(ready=True, status="up = and [31m running", alive=True)
    assert understand(said, b"STOPPING=1").ready is False
    assert understand(said, b"READY=0\nWATCHDOG=trigger\nnonsense") == said


def test_a_status_is_cut_to_what_a_table_can_show() -> None:
    assert len(understand(Said(), b"STATUS=" + b"x" * 4000).status or "") == 500


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([b'"ready"\n'], ["message"]),
        ([b'"rea', b'dy"', b"\n"], ["message"]),
        ([b'{"a":"ready"}\n"listening"\n'], ["listening"]),
        ([b"x" * 100_000, b'"ready"\n', b'"ready"\n'], ["message"]),
        ([b'"ready"'], []),
        ([b'"ready" \n', b"ready\n", b"\n"], []),
    ],
)
def test_words_are_found_in_whatever_pieces_they_come(chunks: list[bytes], words: list[str]) -> None:
    lines = Lines()
    assert [word for chunk in chunks for word in lines.feed(chunk)] == words
    assert len(lines._rest) < 20


def test_what_a_process_inherits_has_places_that_follow_from_its_launch() -> None:
    everything = Launch(["a"], "/", {}, notify=True, channel=True, listen_address="::1", listen_port=1)
    assert places(everything) == Places(listener=3, channel=4, notify=5, supervisor_end=6)
    assert places(Launch(["a"], "/", {}, notify=True)) == Places(-1, -1, 3, -1)
    assert places(Launch(["a"], "/", {})) == Places(-1, -1, -1, -1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ready_by": "hope"}, "not known"),
        ({"ready_by": "notify"}, "need notify"),
        ({"watchdog_seconds": 5}, "need notify"),
        ({"watchdog_seconds": -1, "notify": True}, "watchdog_seconds"),
        ({"ready_by": "message"}, "need channel"),
        ({"ready_by": "listening"}, "need channel"),
        ({"shutdown_message": True}, "need channel"),
        ({"channel": 1}, "true or false"),
        ({"listen_port": 70_000}, "port number"),
        ({"listen_port": 80}, "needs listen_address"),
    ],
)
def test_a_launch_that_contradicts_itself_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        launch_of({"launch": {"argv": ["a"], "cwd": "/", "env": {}, **changes}})


def test_a_copy_comes_back_from_another_process() -> None:
    read, write = os.pipe()
    pidfd = os.pidfd_open(os.getpid())
    try:
        copied = copy_from(pidfd, write)
        assert copied is not None
        os.write(copied, b"x")
        assert os.read(read, 1) == b"x"
        assert not os.get_inheritable(copied)
        os.close(copied)
        assert copy_from(pidfd, 1 << 20) is None
    finally:
        for descriptor in (read, write, pidfd):
            os.close(descriptor)


def test_what_is_taken_from_the_store_is_the_takers_and_the_rest_is_closed() -> None:
    pipes = [os.pipe() for _ in range(2)]
    with closing(Kept({"a": [pipes[0][0], pipes[0][1]], "b": [pipes[1][0], pipes[1][1]]})) as kept:
        assert kept.take("a") == pipes[0][0]
        assert kept.take("a") is None
        kept.drop_unclaimed()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipes[1][0])
    os.close(pipes[0][0])


def test_a_service_manager_that_does_not_read_is_waited_for_once_and_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
    monkeypatch.setattr(kept_module, "_DEAF_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, closing(Kept({})) as kept:
        manager.bind(str(tmp_path / "manager"))
        manager.setblocking(False)
        began = time.monotonic()
        for number in range(40):  # more than its queue holds: net.unix.max_dgram_qlen
            kept.drop(f"worker-{number}")
        assert time.monotonic() - began < 5
        heard: list[bytes] = []
        deadline = time.monotonic() + 20
        while len(heard) < 41 and time.monotonic() < deadline:
            try:
                heard.append(manager.recv(4096))
            except BlockingIOError:
                kept.drop("another")
                time.sleep(0.01)
    names = [message.decode().rpartition("=")[2] for message in heard]
    assert names[:40] == [f"worker-{number}" for number in range(40)]


def test_a_service_manager_that_was_started_again_is_told_at_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "manager"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    with closing(Kept({})) as kept:
        for number in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.bind(str(address))
                kept.drop(f"worker-{number}")
                manager.settimeout(5)
                assert manager.recv(4096) == f"FDSTOREREMOVE=1\nFDNAME=worker-{number}".encode()
            kept.drop(f"lost-{number}")  # nobody listens
            address.unlink()


def test_a_listener_from_the_store_is_taken_only_where_it_listens_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as right, socket.create_server(("127.0.0.1", 0)) as wrong:
        shared = Shared("shop", "127.0.0.1", right.getsockname()[1])
        for given, taken in ((wrong, False), (right, True)):
            with (
                closing(Kept({shared.stored_name: [os.dup(given.fileno())]})) as kept,
                closing(Listeners(kept)) as listeners,
            ):
                listeners.adopt(shared, None, 3)
                if taken:
                    assert os.path.sameopenfile(listeners.open(shared), right.fileno())
                else:
                    with pytest.raises(OSError, match="in use"):
                        listeners.open(shared)


def test_a_socket_that_no_longer_listens_frees_its_address_though_copies_live() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(fileno=os.dup(server.fileno())):
        stop_listening(server.fileno())
        with socket.create_server(server.getsockname()):
            pass


def test_a_stranger_socket_is_not_taken_for_the_notify_socket(tmp_path: Path) -> None:
    ours = NotifySocket.bind(tmp_path / "a")
    try:
        assert NotifySocket.adopt(os.dup(ours.descriptor), tmp_path / "b") is None
        again = NotifySocket.adopt(os.dup(ours.descriptor), tmp_path / "a")
        assert again is not None
        again.close()
    finally:
        ours.close()


def test_a_full_channel_takes_no_message_and_blocks_nobody() -> None:
    ours, theirs = channels.pair()
    with theirs:
        while ours.send(b"x" * 65536):
            pass
        assert not ours.send(channels.SHUTDOWN)
    ours.close()
    assert not ours.send(channels.SHUTDOWN)


def test_a_watchdog_has_no_timer_until_it_is_armed_and_none_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, missed = [100.0], []
    monkeypatch.setattr(watchdog, "now", lambda: clock[0])
    loop = Loop()
    try:
        dog = Watchdog(loop, 5.0, lambda: missed.append(clock[0]))
        assert not loop._timers
        dog.arm()
        for at, heard in ((102.0, True), (105.0, False), (107.0, True), (112.0, False), (112.25, False)):
            clock[0] = at
            if heard:
                dog.heard()
            else:
                dog._look()
        assert missed == [112.25]
        dog.close()
        assert dog._timer is None
    finally:
        loop.close()
