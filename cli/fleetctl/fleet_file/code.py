"""Where an app's code lies, as a file says it: `code`. Pure: what is there is looked at when it is packed."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from fleetctl.fleet_file.paths import absolute
from fleetctl.fleet_file.reader import Reader
from fleetctl.fleet_file.tree import Path_, Scalar, Table, Tree, dotted

FIELDS = ("path", "ref", "npm_pack", "digest")
DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Code:
    """Either `path` says what is sent, or `digest` names what the fleet's store has."""

    path: str = ""
    """Absolute: a folder, or an archive."""
    ref: str = ""
    """What git has of the folder in this commit."""
    npm_pack: bool = False
    digest: str = ""
    """SHA-256, lower-case hex."""
    written: str = field(default="", compare=False)
    """Where it stands, for those who find out that it is not so: "fleet.yaml:4:5: apps.shop.code"."""


def code_of(reader: Reader, tree: Tree, at: Path_, folder: Path) -> Code | None:
    """None where it was complained about."""
    if isinstance(tree, Scalar):
        path = _text(
            reader, tree, at, "write the path of a folder or an archive, or {path, ref, npm_pack}, or {digest}"
        )
        return None if path is None else Code(absolute(path, folder), written=reader.spot(tree.place, dotted(at)))
    if isinstance(tree, Table):
        for name in ("build", "command", "script"):
            if name in tree.entries:
                reader.complain(tree.keys.get(name), (*at, name), f"{name} stands beside code, not in it")
                return None
    told = len(reader.complaints)
    table = reader.table(tree, at, FIELDS)
    values = {name: value for name, value in table.entries.items() if name != "npm_pack"}
    texts = {name: _text(reader, value, (*at, name), "write a text") for name, value in values.items()}
    npm_pack = _boolean(reader, table.entries["npm_pack"], (*at, "npm_pack")) if "npm_pack" in table.entries else False
    if len(reader.complaints) > told:
        return None
    where = reader.spot(table.place, dotted(at))
    digest = texts.get("digest")
    if digest is not None:
        return _named(reader, table, at, digest, where)
    if not table.entries:
        reader.complain(table.place, at, "write path: a folder or an archive, from the file's folder")
        return None
    ref = texts.get("ref") or ""
    if ref and npm_pack:
        reader.complain(table.keys.get("npm_pack"), (*at, "npm_pack"), "it takes the files as they are: leave ref out")
        return None
    return Code(absolute(texts.get("path") or ".", folder), ref, bool(npm_pack), written=where)


def _named(reader: Reader, table: Table, at: Path_, digest: str, where: str) -> Code | None:
    if others := sorted(set(table.entries) - {"digest"}):
        reader.complain(table.keys.get(others[0]), (*at, others[0]), "digest says which code it is: leave it out")
        return None
    found = DIGEST.fullmatch(digest)
    if found is None:
        text = f"{digest!r} is no digest: 64 digits and letters a to f, as `fleetctl export` writes it"
        reader.complain(table.keys.get("digest"), (*at, "digest"), text)
        return None
    return Code(digest=found[1], written=where)


def _text(reader: Reader, tree: Tree, at: Path_, wanted: str) -> str | None:
    if isinstance(tree, Scalar) and tree.value is not None and tree.text:
        return tree.text
    reader.complain(tree.place, at, wanted)
    return None


def _boolean(reader: Reader, tree: Tree, at: Path_) -> bool:
    if isinstance(tree, Scalar) and isinstance(tree.value, bool):
        return tree.value
    reader.complain(tree.place, at, "write true or false")
    return False
