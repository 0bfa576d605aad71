"""Choosing blocks of ports. Pure: whether a block is free is asked of the caller."""

from collections.abc import Callable

from fleetctl.up.errors import UpError

BLOCK_PORTS = 200
FIRST_PORT = 20_000
LAST_PORT = 32_767
"""Linux gives ports from 32768 to outgoing connections (ip_local_port_range, man 7 ip)."""
BLOCKS = (LAST_PORT - FIRST_PORT + 1) // BLOCK_PORTS


def choose_blocks(count: int, preferred: int, block_is_free: Callable[[int], bool]) -> list[int]:
    """The first ports of `count` free blocks, tried in order from block number `preferred` on, round once.

    `block_is_free` is asked about no block after the last one needed. Raises UpError when there are too few.
    """
    chosen: list[int] = []
    for step in range(BLOCKS):
        if len(chosen) == count:
            break
        first = FIRST_PORT + (preferred + step) % BLOCKS * BLOCK_PORTS
        if block_is_free(first):
            chosen.append(first)
    if len(chosen) < count:
        raise UpError(
            f"too few free ports from {FIRST_PORT} to {LAST_PORT}: {count} blocks of {BLOCK_PORTS} are needed, "
            f"{len(chosen)} are free; stop another `fleetctl up`, or ask for fewer --hosts"
        )
    return sorted(chosen)
