"""`python -m tests.bench.host.pressure ADDRESS:PORT`: clients that ask again as soon as they are answered, in one thread."""

import argparse
import json
import selectors
import socket
import sys
import time

from tests.load.http import GarbledResponseError, ResponseReader, encode_request

_RECEIVE_BYTES = 64 * 1024


class _Client:
    """One connection at a time; `keep_alive` keeps it as long as the server does."""

    def __init__(self, address: tuple[str, int], *, keep_alive: bool) -> None:
        self._address = address
        self._keep_alive = keep_alive
        self._request = encode_request("GET", "/", f"{address[0]}:{address[1]}", b"", close=not keep_alive)
        self.socket: socket.socket | None = None
        self._reader = ResponseReader()

    def ask(self) -> socket.socket:
        """Send a request; connects where it must. Raises OSError. On loopback a connect is done at once, or refused."""
        if self.socket is None:
            self.socket = socket.create_connection(self._address, 5.0)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._reader = ResponseReader()
        self.socket.sendall(self._request)
        return self.socket

    def receive(self) -> bool:
        """Whether the answer is whole. Raises OSError, GarbledResponseError."""
        assert self.socket is not None
        data = self.socket.recv(_RECEIVE_BYTES)
        response = self._reader.feed(data)
        if response is None:
            if not data:
                raise ConnectionResetError("closed before the answer was whole")
            return False
        if response.status != 200:
            raise GarbledResponseError(f"status {response.status}")
        return True

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @property
    def keep_alive(self) -> bool:
        return self._keep_alive


def press(address: tuple[str, int], connections: int, seconds: float, *, keep_alive: bool) -> dict[str, float]:
    """Requests a second, and how many failed."""
    clients = [_Client(address, keep_alive=keep_alive) for _ in range(connections)]
    answered = failed = 0
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        deadline = began + seconds
        for client in clients:
            selector.register(client.ask(), selectors.EVENT_READ, client)
        while time.perf_counter() < deadline:
            for key, _events in selector.select(0.1):
                client = key.data
                try:
                    if not client.receive():
                        continue
                    answered += 1
                    again = not client.keep_alive
                except (OSError, GarbledResponseError):
                    failed += 1
                    again = True
                if again:
                    selector.unregister(key.fileobj)
                    client.close()
                    selector.register(client.ask(), selectors.EVENT_READ, client)
                else:
                    client.ask()
        elapsed = time.perf_counter() - began
    for client in clients:
        client.close()
    return {"per_second": answered / elapsed, "failed": failed}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.host.pressure")
    parser.add_argument("address")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--keep-alive", action="store_true")
    arguments = parser.parse_args()
    host, _, port = arguments.address.rpartition(":")
    result = press((host, int(port)), arguments.connections, arguments.seconds, keep_alive=arguments.keep_alive)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
