"""One check of each kind, against real commands and sockets."""

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from fleet_agent.command_check import command_finding
from fleet_agent.http_check import http_finding, tcp_finding
from fleet_agent.supervisor.protocol import Launch
from tests.integration.supervisor.running import alive


def launch(folder: Path, **fields: object) -> Launch:
    env = {"PATH": os.environ["PATH"], "COLOUR": "blue", "FLEET_APP": "web", "FLEET_GENERATION": "1"}
    return Launch(**{"argv": ["x"], "cwd": str(folder), "env": env, **fields})  # type: ignore[arg-type]


async def test_a_command_that_exits_with_0_is_good_and_any_other_end_is_told(tmp_path: Path) -> None:
    at = launch(tmp_path)
    assert (await command_finding(["true"], at, 5)).good
    assert (await command_finding(["/bin/sh", "-c", "exit 3"], at, 5)).seen == "sh exited with 3"
    assert (await command_finding(["sh", "-c", "kill -9 $$"], at, 5)).seen == "sh was killed by SIGKILL"
    assert (await command_finding(["sh", "-c", "kill -40 $$"], at, 5)).seen == "sh was killed by signal 40"
    assert (
        await command_finding(["no-such-program"], at, 5)
    ).seen == "no-such-program cannot be run: No such file or directory"
    unknown = await command_finding(["true"], launch(tmp_path, user="nobody-of-that-name"), 5)
    assert unknown.seen == "true cannot be run: user nobody-of-that-name is not known on this host"


async def test_a_command_runs_where_and_as_the_worker_does_but_is_no_part_of_it(tmp_path: Path) -> None:
    script = 'test "$PWD" = "$0" && test $COLOUR = blue && test -z "$FLEET_GENERATION" && test $(umask) = 0027'
    assert (await command_finding(["sh", "-c", script, str(tmp_path)], launch(tmp_path, umask=0o027), 5)).good


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
async def test_a_command_runs_as_the_workers_user(tmp_path: Path) -> None:
    as_number = launch(tmp_path, user="54321", group="54322", cwd="/")
    tmp_path.chmod(0o755)
    assert (await command_finding(["sh", "-c", "test $(id -u):$(id -g) = 54321:54322"], as_number, 5)).good


async def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    script = "sleep 600 & echo $! > pid; wait"
    finding = await command_finding(["sh", "-c", script], launch(tmp_path), 0.5)
    assert finding.seen == "sh did not end within 0.5 s"
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_port_that_accepts_is_good_and_one_that_refuses_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert (await tcp_finding("127.0.0.1", port, 5)).good
    refused = await tcp_finding("127.0.0.1", port, 5)
    assert not refused.good
    assert refused.seen == f"connection to port {port}: Connection refused"
    assert (await http_finding("127.0.0.1", port, "/", 5)).seen == f"GET / on port {port}: Connection refused"


EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "good", "seen"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, "answered 204"),
        (b"HTTP/1.0 200\r\n\r\n", True, "answered 200"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", True, "answered 302"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", False, "answered 503"),
        (EARLY + b"HTTP/1.1 200 OK\r\n\r\n", True, "answered 200"),
        (EARLY + b"HTTP/1.1 500 No\r\n\r\n", False, "answered 500"),
        (EARLY, False, "the connection was closed without an answer"),
        (b"HTTP/1.1 103 Early Hints\r\n" + b"Link: x\r\n" * 10_000, False, "the answer is not HTTP/1"),
        (b"SSH-2.0-OpenSSH\r\n", False, "the answer is not HTTP/1"),
        (b"\0" * 100_000, False, "not HTTP/1"),
        (b"", False, "the connection was closed without an answer"),
    ],
)
async def test_the_status_of_an_http_answer_is_the_one_that_ends_it(answer: bytes, good: bool, seen: str) -> None:
    """A 1xx is no answer yet (RFC 9110, 15.2)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
        done.set()

    done = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        finding = await http_finding("127.0.0.1", server.sockets[0].getsockname()[1], "/healthz", 5)
        await done.wait()
    assert finding.good == good
    assert seen in finding.seen
