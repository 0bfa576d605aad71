"""Addresses of controllers as people write them. Pure, and cheap to import."""


def parse_addresses(text: str) -> tuple[str, ...]:
    """Each "host:port" of "HOST:PORT[,HOST:PORT]". ValueError says what is wrong."""
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not port.isascii() or not 0 < int(port) < 65_536:
            raise ValueError(f"{address!r} is not HOST:PORT, for example 10.0.0.1:7400")
    if not addresses:
        raise ValueError("it is empty: write HOST:PORT[,HOST:PORT]")
    return addresses
