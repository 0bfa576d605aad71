"""fleetctl, and the library by which programs use a fleet: docs/client.md.

The library's names (fleetctl.client.public) are imported when one is used: the command line starts without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetctl.client.public import *  # noqa: F403 (handed on, and so typed)


def __getattr__(name: str) -> Any:
    """The library's names begin with capitals, which tells them from modules without importing either."""
    if name == "__all__":  # of `from fleetctl import *`
        return import_module("fleetctl.client.public").__all__
    if name[0].isupper():
        value = getattr(import_module("fleetctl.client.public"), name, None)
        if value is not None:
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("fleetctl.client.public").__all__})
