"""What docs/apps.md tells its readers to type, read from the page itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration.fleet.harness import ROOT

PAGE = ROOT / "docs" / "apps.md"

_SECTION = re.compile(r"^## ", re.MULTILINE)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r" -n (\S+)")
_ROUTE = re.compile(r"--http (\S+)")
_FOLDER = re.compile(r"^cd (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Documented:
    """One shell block that starts an app."""

    commands: str
    """Run from the repository's root."""
    name: str
    folder: str
    """The example's, from the repository's root."""
    route: str
    """ "ADDRESS:PORT"; "": it has none."""

    def routed_to(self, address: str) -> str:
        """The same commands with the balancer listening elsewhere: tests have no fixed ports."""
        return self.commands.replace(f"--http {self.route}", f"--http {address}") if self.route else self.commands


def documented_apps(page: Path = PAGE) -> Mapping[str, Documented]:
    """App's name → what starts it, in the page's order. Raises ValueError for a block nobody could follow."""
    found: dict[str, Documented] = {}
    for section in _SECTION.split(page.read_text())[1:]:
        title = section.partition("\n")[0]
        for commands in _BLOCK.findall(section):
            name, folder, route = (pattern.search(commands) for pattern in (_NAME, _FOLDER, _ROUTE))
            if name is None or folder is None or name[1] in found:
                raise ValueError(f"{title}: a block names its folder, and an app that no other block names")
            found[name[1]] = Documented(commands, name[1], folder[1], route[1] if route else "")
    return found
