"""Which TCP sockets listen on this host, and which process tree holds one.

From sock_diag(7), which answers in one exchange; where netlink is not allowed (some sandboxes), from /proc/net/tcp and tcp6.
"""

import contextlib
import ipaddress
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x0301  # NLM_F_REQUEST | NLM_F_DUMP, netlink(7)
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
_ID_OFFSET = 4  # of struct inet_diag_sockid in struct inet_diag_msg, linux/inet_diag.h
_INODE_OFFSET = 68
_MESSAGE_BYTES = 72
_TIMEOUT_SECONDS = 2.0
_PROC_LISTEN = "0A"
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket."""

    address: str
    port: int
    inode: int

    def reachable_at(self, address: str) -> bool:
        """Does it accept connections to `address`? True where `address` is a name, which only the resolver could tell."""
        try:
            wanted, bound = ipaddress.ip_address(address), ipaddress.ip_address(self.address)
        except ValueError:
            return True
        if isinstance(bound, ipaddress.IPv6Address) and bound.ipv4_mapped is not None:
            bound = bound.ipv4_mapped
        # "::" accepts IPv4 too unless the program asked for IPv6 alone, which nobody does on its only socket.
        return bound == wanted or (bound.is_unspecified and (bound.version == wanted.version or bound.version == 6))


class ListenerTable:
    """Takes snapshots of this host's listening sockets; remembers that netlink is not allowed."""

    def __init__(self) -> None:
        self._netlink = True

    def read(self) -> list[Listener]:
        """Raises OSError where neither netlink nor /proc can be read."""
        if self._netlink:
            try:
                return [*_dump(socket.AF_INET), *_dump(socket.AF_INET6)]
            except OSError:
                self._netlink = False
        return [*_proc_listeners("/proc/net/tcp", 4), *_proc_listeners("/proc/net/tcp6", 16)]


def holds_socket(pids: Collection[int], inode: int) -> bool | None:
    """Does one of these processes hold the socket? None: at least one of them may not be looked at, and no other does."""
    hidden = False
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            # The newest first: a program opens its socket after all that it opens to begin with.
            for name in reversed(os.listdir(folder)):  # noqa: PTH208 - names are all that is needed
                with contextlib.suppress(FileNotFoundError):
                    match = _SOCKET_LINK.fullmatch(os.readlink(f"{folder}/{name}"))  # noqa: PTH115 - it names no file
                    if match is not None and int(match[1]) == inode:
                        return True
        except PermissionError:
            hidden = True
        except OSError:
            continue  # it ended meanwhile
    return None if hidden else False


def _dump(family: int) -> Iterator[Listener]:
    body = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN)
    request = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_TIMEOUT_SECONDS)
        netlink.sendto(request, (0, 0))
        while True:
            data = netlink.recv(256 * 1024)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR or length < _HEADER.size:
                    raise OSError("sock_diag refused the request")
                payload = data[offset + _HEADER.size : offset + length]
                if len(payload) >= _MESSAGE_BYTES:
                    yield _parse_message(payload)
                offset += (length + 3) & ~3


def _parse_message(payload: bytes) -> Listener:
    (port,) = struct.unpack_from("!H", payload, _ID_OFFSET)
    size = 4 if payload[0] == socket.AF_INET else 16
    address = payload[_ID_OFFSET + 4 : _ID_OFFSET + 4 + size]
    (inode,) = struct.unpack_from("=I", payload, _INODE_OFFSET)
    return Listener(str(ipaddress.ip_address(address)), port, inode)


def _proc_listeners(path: str, size: int) -> Iterator[Listener]:
    """Lines of man 5 proc, "/proc/net/tcp": the address is printed as 32-bit words in this machine's byte order."""
    try:
        stream = open(path)  # noqa: PTH123, SIM115 - closed below
    except FileNotFoundError:
        return  # a kernel without IPv6
    with stream:
        next(stream, None)
        for line in stream:
            fields = line.split()
            if fields[3] != _PROC_LISTEN:
                continue
            text, _, port = fields[1].partition(":")
            words = bytes.fromhex(text)
            address = b"".join(struct.pack("=I", *struct.unpack_from("!I", words, at)) for at in range(0, size, 4))
            yield Listener(str(ipaddress.ip_address(address)), int(port, 16), int(fields[9]))
