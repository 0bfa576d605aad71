"""Addresses as people write them: "ADDRESS:PORT". Pure."""

from fleet_core.checked import RuleError

EVERYWHERE = "0.0.0.0"  # noqa: S104 (what a route without an address means)
EVERY_ADDRESS = (EVERYWHERE, "::")


def parse_address(text: str) -> tuple[str, int]:
    """Split "ADDRESS:PORT" ("[::1]:80", ":80", "80" for every address); ValueError says what is wrong."""
    address, _, port_text = text.rpartition(":")
    if (
        not port_text.isdecimal()
        or not port_text.isascii()
        or not 0 < int(port_text) < 65_536
        or set(address) & set(" /@\t\n")
    ):
        raise ValueError(f"address {text!r} is not valid: write ADDRESS:PORT, for example 127.0.0.1:8080 or :8080")
    return address.strip("[]") or EVERYWHERE, int(port_text)


def check_address(text: str, field: str) -> None:
    """Raises RuleError where `parse_address` would refuse it."""
    try:
        parse_address(text)
    except ValueError as error:
        raise RuleError(str(error), field) from error
