"""A TLS connection to a controller on the event loop: whole pieces out at once, whatever comes in to a callback.

asyncio's own TLS does the same through more layers. Idle agents send little else than heartbeats, each from a processor that has
forgotten all of them, and those layers were a third of what one costs (ADR 17).
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple

from fleet_core.addresses import parse_address
from fleet_core.tls import CONTROLLER_DNS_NAME, TlsFiles

_PROTOCOL = "h2"
_READ_BYTES = 256 * 1024
_NEXT_ADDRESS_SECONDS = 0.25
"""Of a name with several addresses, the next is tried beside one that does not answer (RFC 8305)."""


class Ears(NamedTuple):
    """Whom a wire tells."""

    received: Callable[[bytes], None]
    closed: Callable[[str], None]
    """Why. Once, and nothing is told after it."""
    drained: Callable[[], None]
    """What was written is with the kernel again."""


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Trusts controllers of our authority and shows our certificate. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(files.authority)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols([_PROTOCOL])
    return context


class Wire(asyncio.Protocol):
    """Made by `connect`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=CONTROLLER_DNS_NAME)
        self._secured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._ears: Ears | None = None
        self._early = b""
        """Came with the end of the handshake, before anybody listened."""
        self._ended = ""
        self.clear = True
        """What was written is with the kernel."""

    async def connect(self, address: str) -> None:
        """To "host:port", secured. Raises OSError. `close` it whatever happened."""
        try:
            host, port = parse_address(address)
        except ValueError as error:  # perhaps a controller named it
            raise ConnectionAbortedError(str(error)) from error
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, host, port, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
        await self._secured
        if self._tls.selected_alpn_protocol() != _PROTOCOL:
            raise ConnectionAbortedError("the peer does not speak HTTP/2")

    def listen(self, ears: Ears) -> None:
        """From now on tell these."""
        self._ears = ears
        early, self._early = self._early, b""
        if early:
            ears.received(early)
        if self._ended:
            self._tell_end(self._ended)

    def write(self, data: bytes) -> None:
        """Nothing happens on a wire that has ended."""
        if self._transport is not None and not self._ended:
            self._tls.write(data)
            self._transport.write(self._outgoing.read())

    def close(self) -> None:
        """At once; tells nobody. May be repeated."""
        self._ears = None
        self._ended = self._ended or "closed"
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):  # as every connection's is
            self._transport = transport
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._secured.done():
                self._shake_hands()
            if self._secured.done():
                self._receive()
        except (ssl.SSLError, ConnectionError) as error:
            self._end(str(error))

    def eof_received(self) -> bool:
        return False  # the transport closes, and tells `connection_lost`

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error or "") or "the connection ended")

    def pause_writing(self) -> None:
        self.clear = False

    def resume_writing(self) -> None:
        self.clear = True
        if self._ears is not None:
            self._ears.drained()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._flush()  # an alert
            self._end(f"no secure connection: {error}")
        else:
            self._flush()
            if not self._secured.done():
                self._secured.set_result(None)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None:
            self._transport.write(data)

    def _receive(self) -> None:
        records: list[bytes] = []
        closed, broken = False, None
        while not closed:
            try:
                data = self._tls.read(_READ_BYTES)  # a record, which is 16 KiB at most
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                broken = error
                break
            closed = not data
            records.append(data)
        data = b"".join(records)
        if data and self._ears is not None:
            self._ears.received(data)
        elif not self._ended:
            self._early += data
        if broken is not None:
            raise broken
        if closed:
            self._end("the controller closed the connection")
            return
        if self._outgoing.pending:
            self._flush()  # TLS has words of its own, such as new keys

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = reason
        if self._transport is not None:
            self._transport.close()
        if not self._secured.done():
            self._secured.set_exception(ConnectionAbortedError(reason))
        self._tell_end(reason)

    def _tell_end(self, reason: str) -> None:
        ears, self._ears = self._ears, None
        if ears is not None:
            ears.closed(reason)
