"""docs/install.md, read as a script: what it says to do, and on which machine. Pure."""

import re
from dataclasses import dataclass

_BLOCK = re.compile(r"^```(sh|ini)\n# (?:on|to) ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `where` is what follows "# on " or "# to ": "web1", "every machine", "upgrade web1"."""

    where: str
    text: str
    path: str = ""
    """Not empty: the text is this file's."""


def blocks(document: str) -> list[Block]:
    """In the order of the page."""
    found = []
    for language, where, text in _BLOCK.findall(document):
        machine, _, path = where.partition(": ")
        found.append(Block(machine, text, path if language == "ini" else ""))
    return found
