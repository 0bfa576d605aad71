"""The agent's own gRPC against gRPC's: a real server, real TLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from fleet.v1 import agent_pb2, agent_pb2_grpc
from fleet_agent.agent_service import AgentServiceClient, SessionCall
from fleet_core.authority import create_authority, issue
from fleet_core.controller_link.calls import CallError, Code, ControllerConnection
from fleet_core.grpc_tls import server_credentials, server_options
from fleet_core.tls import Identity, Role, TlsFiles

Context = grpc.aio.ServicerContext[Any, Any]
Options = list[tuple[str, int | str]]


class Serve(Protocol):
    async def __call__(self, service: "Service", options: Options | None = None) -> str:
        """Its address."""
        ...


class Service(agent_pb2_grpc.AgentServiceServicer):
    """Keeps what it is told, ends a session at the word that its agent is leaving, and sends as much as it is asked for."""

    def __init__(self) -> None:
        self.refusal: tuple[grpc.StatusCode, str, str] | None = None
        self.heard: list[agent_pb2.AgentMessage] = []
        self.changed = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.over = asyncio.Event()
        self.server: grpc.aio.Server | None = None

    async def Session(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[agent_pb2.AgentMessage], context: Context
    ) -> AsyncIterator[agent_pb2.ControllerMessage]:
        if self.refusal is not None:
            code, text, leader = self.refusal
            context.set_trailing_metadata((("fleet-leader", leader),))
            await context.abort(code, text)
        try:
            yield agent_pb2.ControllerMessage(welcome=agent_pb2.AgentWelcome(protocol_version=1))
            async for message in request_iterator:
                await self.reading.wait()
                self.heard.append(message)
                self.changed.set()
                if message.WhichOneof("message") == "leaving":
                    return
        finally:
            self.over.set()

    async def FetchArtifact(  # noqa: N802 - gRPC's name
        self, request: agent_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[agent_pb2.ArtifactChunk]:
        for _ in range(request.offset):
            yield agent_pb2.ArtifactChunk(data=bytes(request.digest.encode()) * 1000, size_bytes=7)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    create_authority(tmp_path)
    files = issue(tmp_path, Identity(Role.CONTROLLER, "controller1"))
    servers: list[grpc.aio.Server] = []

    async def start(service: Service, options: Options | None = None) -> str:
        service.server = server = grpc.aio.server(options=options or server_options())
        servers.append(server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
        port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
        await server.start()
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(None)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return issue(tmp_path, Identity(Role.AGENT, "host1"))


def chunk(data: bytes) -> agent_pb2.AgentMessage:
    return agent_pb2.AgentMessage(log_chunk=agent_pb2.LogChunk(request_id=data.hex()[:8], error=data.hex()))


@contextlib.asynccontextmanager
async def connected(address: str, files: TlsFiles) -> AsyncIterator[ControllerConnection]:
    connection = await ControllerConnection.connect(address, files)
    try:
        yield connection
    finally:
        connection.close()


async def test_messages_go_both_ways_and_an_end_is_an_end(serve: Serve, files: TlsFiles) -> None:
    service = Service()
    async with asyncio.timeout(20), connected(await serve(service), files) as connection:
        call = AgentServiceClient(connection).session()
        welcome = await call.read()
        assert welcome is not None
        assert welcome.welcome.protocol_version == 1
        messages = [chunk(bytes([number]) * 10) for number in range(100)]
        for message in messages:
            await call.write(message)
        await service.wait_for(100)
        assert service.heard == messages
        await call.write(agent_pb2.AgentMessage(leaving=agent_pb2.AgentLeaving(leaving=True)))
        assert await call.read() is None
        with pytest.raises(CallError, match="the controller ended the call"):
            await call.write(messages[0])


async def test_a_refusal_tells_its_code_its_words_and_the_leader(serve: Serve, files: TlsFiles) -> None:
    service = Service()
    service.refusal = grpc.StatusCode.FAILED_PRECONDITION, "not the leader: 100 % sure, it's “prod”", "10.0.0.1:7600"
    async with asyncio.timeout(20), connected(await serve(service), files) as connection:
        call = AgentServiceClient(connection).session()
        with pytest.raises(CallError) as refused:
            await call.read()
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert refused.value.details == "not the leader: 100 % sure, it's “prod”"
    assert refused.value.metadata["fleet-leader"] == "10.0.0.1:7600"


async def test_megabytes_come_through_a_reader_that_is_slow(serve: Serve, files: TlsFiles) -> None:
    async with asyncio.timeout(30), connected(await serve(Service()), files) as connection:
        request = agent_pb2.FetchArtifactRequest(digest="x" * 100, offset=60)
        call = AgentServiceClient(connection).fetch_artifact(request)
        sizes = []
        while (part := await call.read()) is not None:
            sizes.append(len(part.data))
            await asyncio.sleep(0.001)
        assert sizes == [100_000] * 60


async def test_a_message_longer_than_any_window_arrives(serve: Serve, files: TlsFiles) -> None:
    async with asyncio.timeout(30), connected(await serve(Service()), files) as connection:
        request = agent_pb2.FetchArtifactRequest(digest="x" * 5000, offset=1)
        call = AgentServiceClient(connection).fetch_artifact(request)
        part = await call.read()
        assert part is not None
        assert len(part.data) == 5_000_000
        assert await call.read() is None


async def test_a_writer_waits_while_the_controller_does_not_read(serve: Serve, files: TlsFiles) -> None:
    service = Service()
    service.reading.clear()
    async with asyncio.timeout(30), connected(await serve(service), files) as connection:
        call = AgentServiceClient(connection).session()
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(200):
                await call.write(chunk(bytes(50_000)))
                written += 1

        writing = asyncio.create_task(write())
        seen = -1
        while call.clear or written != seen:  # full, and it has not gone on for a moment
            seen = written
            done, _ = await asyncio.wait([writing], timeout=0.3)
            assert not done
        service.reading.set()
        await writing
        await service.wait_for(200)


async def test_a_cancelled_call_is_over_at_both_ends(serve: Serve, files: TlsFiles) -> None:
    service = Service()
    async with asyncio.timeout(20), connected(await serve(service), files) as connection:
        call = AgentServiceClient(connection).session()
        await call.read()
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(CallError, match="cancelled"):
            await reading
        await service.over.wait()
        again = AgentServiceClient(connection).session()
        assert await again.read() is not None


async def test_calls_end_with_their_connection(serve: Serve, files: TlsFiles) -> None:
    service = Service()
    async with asyncio.timeout(20), connected(await serve(service), files) as connection:
        call = AgentServiceClient(connection).session()
        await call.read()
        assert service.server is not None
        await service.server.stop(None)
        with pytest.raises(CallError) as ended:
            await call.read()
        assert ended.value.code in (Code.UNAVAILABLE, Code.CANCELLED)
        with pytest.raises(CallError):
            AgentServiceClient(connection).session()


async def test_a_controller_that_is_silent_for_too_long_is_given_up(
    serve: Serve, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where this side has nothing to say: it asks, and is answered until the line is cut."""
    monkeypatch.setattr("fleet_core.controller_link.calls._PING_SECONDS", 1.1)  # servers allow one in a second
    monkeypatch.setattr("fleet_core.controller_link.calls._PONG_SECONDS", 1.0)
    async with asyncio.timeout(20):
        address = await serve(Service(), server_options(60.0))
        async with _cuttable(address) as (between, cut), connected(between, files) as connection:
            call = AgentServiceClient(connection).session()
            await call.read()
            for _ in range(3):  # longer than both times together
                await _pulse(call)
            cut.set()
            with pytest.raises(CallError, match="nothing was heard"):
                await call.read()


async def test_a_controller_asks_whether_a_silent_agent_is_there(serve: Serve, files: TlsFiles) -> None:
    """Again and again, and the session of one that does not answer ends."""
    service = Service()
    async with asyncio.timeout(20):
        address = await serve(service, server_options(0.2, 1.0))
        async with _cuttable(address) as (between, cut), connected(between, files) as connection:
            call = AgentServiceClient(connection).session()
            await call.read()
            for _ in range(7):
                await _pulse(call)
            assert not service.over.is_set()
            cut.set()
            await service.over.wait()


async def _pulse(call: SessionCall) -> None:
    felt = asyncio.Event()
    call.on_pulse = felt.set
    await felt.wait()


@contextlib.asynccontextmanager
async def _cuttable(address: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Another address of the server there; once the event is set nothing more comes through, and nothing ends."""
    host, _, port = address.rpartition(":")
    cut = asyncio.Event()

    async def relay(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, onward = await asyncio.open_connection(host, int(port))

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if not cut.is_set():
                    sink.write(data)

        try:
            await asyncio.gather(copy(client, onward), copy(server, back))
        except ConnectionError:
            pass
        finally:
            onward.close()
            back.close()

    relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{relaying.sockets[0].getsockname()[1]}", cut
    finally:
        relaying.close()


async def test_a_stranger_is_not_taken_for_a_controller(serve: Serve, files: TlsFiles, tmp_path: Path) -> None:
    """Neither one of another authority, nor one of ours that is no controller, nor what speaks no TLS."""
    async with asyncio.timeout(20):
        address = await serve(Service())
        other = tmp_path / "other"
        create_authority(other)
        stranger = issue(other, Identity(Role.AGENT, "host1"))
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await ControllerConnection.connect(address, stranger)
        plain = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        try:
            port = plain.sockets[0].getsockname()[1]
            with pytest.raises(OSError, match=r"ended|closed|reset"):
                await ControllerConnection.connect(f"127.0.0.1:{port}", files)
        finally:
            plain.close()
        with pytest.raises(ConnectionRefusedError):
            await ControllerConnection.connect(f"127.0.0.1:{port}", files)


async def test_an_agent_of_another_authority_is_refused(serve: Serve, files: TlsFiles, tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        address = await serve(Service())
        other = tmp_path / "other"
        create_authority(other)
        wrong = issue(other, Identity(Role.AGENT, "host1"))
        mixed = TlsFiles(files.authority, wrong.certificate, wrong.key)
        with pytest.raises((OSError, CallError)):
            async with connected(address, mixed) as connection:
                await AgentServiceClient(connection).session().read()
