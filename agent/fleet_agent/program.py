"""`fleet-agent` as a program of its own: what its libraries would load and it never uses is kept out of memory first.

Not for a process that does other things: what is kept out stays out until its end.
"""

import sys
from importlib.util import find_spec

_OPENSSL = ("_ssl", "ssl")
"""asyncio loads it where it is. The agent's TLS is gRPC's, which brings its own."""
_OPENSSL_HASHES = "_hashlib"
_OWN_SHA256 = ("_sha256", "_sha2")
"""hashlib's, before and from Python 3.12 on; a Python may be built without."""


def main() -> int:
    kept_out = [*_OPENSSL]
    if any(find_spec(name) for name in _OWN_SHA256):
        kept_out.append(_OPENSSL_HASHES)
    # None: "cannot be imported" (Python's reference, 5.3.1).
    sys.modules.update(dict.fromkeys(kept_out))  # type: ignore[arg-type]
    from fleet_agent.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
