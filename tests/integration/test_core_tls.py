"""Mutual TLS on real streams: who is who, and who gets nowhere."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from fleet_core.authority import create_authority, issue
from fleet_core.grpc_tls import CHANNEL_OPTIONS, controller_channel, peer_identity, server_credentials, server_options
from fleet_core.tls import Identity, Role

_WHO = "/fleet.test/Who"


async def _who(_request: bytes, context: "grpc.aio.ServicerContext[object, object]") -> bytes:
    identity = peer_identity(context)
    return identity.uri.encode() if identity else b"nobody"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    create_authority(tmp_path)
    return tmp_path


@pytest.fixture
async def address(certificates: Path) -> AsyncIterator[str]:
    """A server with a controller's certificate, which tells each caller who it is."""
    server = grpc.aio.server(options=server_options())
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_who)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("fleet.test", {"Who": handler}),))
    files = issue(certificates, Identity(Role.CONTROLLER, "controller1"))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def _ask(channel: grpc.aio.Channel) -> bytes:
    async with channel:
        who: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_WHO)
        return await who(b"", timeout=3)


@pytest.mark.parametrize("role", list(Role))
async def test_a_certificate_names_its_holder(certificates: Path, address: str, role: Role) -> None:
    files = issue(certificates, Identity(role, "prod1"))

    assert await _ask(controller_channel(address, files)) == f"fleet://{role}/prod1".encode()


async def test_plaintext_is_refused(address: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _ask(grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]))

    assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_client_without_a_certificate_is_refused(certificates: Path, address: str) -> None:
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _ask(grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS))

    assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_certificate_of_another_authority_is_refused_by_either_end(
    tmp_path: Path, certificates: Path, address: str
) -> None:
    create_authority(tmp_path / "other")
    stranger = issue(tmp_path / "other", Identity(Role.OPERATOR, "eve"))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _ask(controller_channel(address, stranger))

    assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_only_a_controller_is_taken_for_a_controller(certificates: Path) -> None:
    """An agent's certificate at the server's end must not do, or any host could give orders."""
    server = grpc.aio.server(options=server_options())
    impostor = issue(certificates, Identity(Role.AGENT, "prod1"), hosts=["127.0.0.1"])
    port = server.add_secure_port("127.0.0.1:0", server_credentials(impostor))
    await server.start()
    operator = issue(certificates, Identity(Role.OPERATOR, "ada"))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _ask(controller_channel(f"127.0.0.1:{port}", operator))
    await server.stop(None)

    assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_what_was_made_before_is_kept(certificates: Path) -> None:
    authority = (certificates / "ca.pem").read_bytes()
    files = issue(certificates, Identity(Role.AGENT, "prod1"))
    certificate = files.certificate.read_bytes()

    create_authority(certificates)

    assert (certificates / "ca.pem").read_bytes() == authority
    assert issue(certificates, Identity(Role.AGENT, "prod1")).certificate.read_bytes() == certificate


def test_keys_are_for_their_owner_alone(certificates: Path) -> None:
    files = issue(certificates, Identity(Role.AGENT, "prod1"))

    for key in (certificates / "ca.key", files.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_server_is_known_by_the_addresses_it_was_given(certificates: Path) -> None:
    files = issue(certificates, Identity(Role.ETCD, "etcd"), hosts=["127.0.0.1", "::1", "etcd.example"])
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert names.get_values_for_type(x509.DNSName) == ["etcd.example"]
