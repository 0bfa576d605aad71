"""Certificates and a TLS client for the tests of routes."""

import asyncio
import ssl
from pathlib import Path

from cryptography import x509

from fleet_balancer.certificates import pem
from tests.integration.balancer.harness import Answer


def give(folder: Path, file: str, *names: str) -> pem.Certificate:
    """Put a certificate into the folder of given ones, in one go, as `FILE.pem`."""
    folder.mkdir(exist_ok=True)
    made = pem.self_signed(names[0], names[1:])
    beside = folder / f".{file}.new"
    beside.write_bytes(made.pem)
    beside.rename(folder / f"{file}.pem")
    return made


class TlsClient:
    """Verifies nothing; knows what it was shown."""

    def __init__(self, port: int, name: str | None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._port = port
        self._name = name
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.maximum_version = newest
        self._context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        # Else the client's own OpenSSL would not try versions before 1.2.
        self._context.set_ciphers("ALL:@SECLEVEL=0")
        self._context.set_alpn_protocols(["http/1.1"])

    async def __aenter__(self) -> "TlsClient":
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname=self._name or ""
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()

    @property
    def shown(self) -> pem.Certificate:
        """Only its names and end."""
        found = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(found)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = frozenset(names.get_values_for_type(x509.DNSName))
        return pem.Certificate(found, dns, certificate.not_valid_after_utc, "")

    @property
    def names(self) -> frozenset[str]:
        return self.shown.names

    async def ask(self, path: str = "/", host: str = "test", headers: str = "") -> Answer:
        """On the same connection, which stays open."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
        body = await self._reader.readexactly(int(fields.get("content-length", "0")))
        return Answer(int(lines[0].split(" ")[1]), fields, body.decode())

    async def get(self, path: str = "/", host: str = "test") -> tuple[int, str]:
        answer = await self.ask(path, host)
        return answer.status, answer.body
