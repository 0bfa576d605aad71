"""The certificates on this balancer's disk. Private keys never leave it.

Given ones lie in a folder that is looked at again and again, as `NAME.pem` (certificate, chain and key in one file) or as
`NAME/fullchain.pem` and `NAME/privkey.pem` (as certbot keeps them); `default.pem` is for clients that ask for no name or for one
that nothing covers. What cannot be read is said, and the last that could be read stays in use. For hosts that no given one covers
the store makes some that are signed by themselves, and keeps them, so that a client that trusts one once can go on doing so.
"""

import datetime
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet_balancer.certificates import pem
from fleet_balancer.certificates.pem import Certificate
from fleet_core.durable import write_durably

_log = logging.getLogger(__name__)
_DEFAULT = "default"
_OWN = ".default"
"""No host begins with a dot."""
_LARGEST_FILE = 256 * 1024
_MOST_FILES = 2000
_MOST_NOTICES = 20
EXPIRES_SOON = datetime.timedelta(days=14)

_Stamp = tuple[tuple[str, int, int, int], ...]
"""Of the files of one certificate: path, inode, size, time of change (of rights too)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a load balancer shall have: the first is for clients whose name nothing covers."""

    certificates: tuple[Certificate, ...] = ()
    notices: tuple[str, ...] = field(default=(), compare=False)
    """What an operator should know, in lines."""

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(one.digest for one in self.certificates).encode()).hexdigest()


class CertificateStore:
    """Blocking: its owner calls it in a thread. Not for two threads at a time."""

    def __init__(
        self,
        given: Path,
        made: Path,
        own_names: Iterable[str] = ("localhost",),
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """`own_names`: for the certificate of clients that ask for no name, where none is given for them."""
        self._given_folder = given
        self._made_folder = made
        self._own_names = tuple(own_names)
        self._clock = clock
        self._given: dict[str, Certificate] = {}
        self._stamps: dict[str, _Stamp] = {}
        self._made: dict[str, Certificate] = {}
        self._problems: dict[str, str] = {}
        self._told: frozenset[str] = frozenset()

    def select(self, hosts: Iterable[str]) -> Selection:
        """Look at the folder, make what is missing for `hosts`, and say what is to be used now. Raises OSError."""
        self._look()
        uncovered = sorted(host for host in set(hosts) if not any(one.covers(host) for one in self._given.values()))
        first = self._given.get(_DEFAULT) or self._self_made(_OWN, self._own_names)
        # Of two for one name HAProxy takes the first.
        given = sorted(self._given.values(), key=lambda one: (one.not_after, one.digest), reverse=True)
        found = [first, *given, *(self._self_made(host, (host,)) for host in uncovered)]
        chosen = tuple({one.digest: one for one in found}.values())
        notices = tuple(self._notices(chosen, uncovered))[:_MOST_NOTICES]
        for line in sorted(set(notices) - self._told):
            _log.warning("%s", line)
        self._told = frozenset(notices)
        return Selection(chosen, notices)

    def _notices(self, chosen: Iterable[Certificate], uncovered: Sequence[str]) -> Iterator[str]:
        for _, problem in sorted(self._problems.items()):
            yield f"certificate {problem}"
        for one in chosen:
            left = one.not_after - self._clock()
            if not one.self_made and left < EXPIRES_SOON:
                when = f"expires on {one.not_after:%Y-%m-%d}" if left.total_seconds() > 0 else "has expired"
                yield f"certificate {one.source} {when}"
        if uncovered:
            more = f" and {len(uncovered) - 3} more" if len(uncovered) > 3 else ""
            yield f"no certificate is given for {', '.join(uncovered[:3])}{more}: clients get one signed by itself"
        elif not self._given:
            yield "no certificate is given: clients get one signed by itself"

    # Given

    def _look(self) -> None:
        found = self._files()
        if found is None:
            return
        for name in self._stamps.keys() - found.keys():
            for table in (self._stamps, self._given, self._problems):
                table.pop(name, None)
        for name, paths in found.items():
            try:
                stamp = tuple(_stamp(path) for path in paths)
                if stamp == self._stamps.get(name):
                    continue
                self._stamps[name] = stamp
                self._given[name] = pem.read(b"\n".join(_content(path) for path in paths), str(paths[0]))
                self._problems.pop(name, None)
            except OSError as error:
                self._problems[name] = f"{paths[0]} cannot be read: {error.strerror}"
            except ValueError as error:
                self._problems[name] = f"{paths[0]} is not used: {error}"

    def _files(self) -> dict[str, tuple[Path, ...]] | None:
        """The files of each certificate, by its name; None: the folder cannot be read."""
        found: dict[str, tuple[Path, ...]] = {}
        self._problems.pop("", None)
        try:
            entries = sorted(self._given_folder.iterdir())[:_MOST_FILES]
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._problems[""] = f"{self._given_folder} cannot be read: {error.strerror}"
            return None
        for entry in entries:
            if entry.suffix == ".pem" and not entry.name.startswith("."):
                found[entry.stem] = (entry,)
            elif (entry / "fullchain.pem").exists():
                found.setdefault(entry.name, (entry / "fullchain.pem", entry / "privkey.pem"))
        return found

    # Made

    def _self_made(self, file: str, names: tuple[str, ...]) -> Certificate:
        """Signed by itself for `names`: the one on disk while it is good for some time, else a new one. Raises OSError."""
        path = self._made_folder / f"{file.replace('*', '_')}.pem"
        known = self._made.get(file)
        if known is None:
            try:
                known = pem.read(path.read_bytes(), f"made here for {names[0]}")
            except (OSError, ValueError):
                known = None
        if known is None or known.not_after - self._clock() < EXPIRES_SOON:
            known = pem.self_signed(names[0], names[1:], self._clock())
            self._made_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(path, known.pem)
        self._made[file] = Certificate(known.pem, known.names, known.not_after, known.source, self_made=True)
        return self._made[file]


def _stamp(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_ctime_ns


def _content(path: Path) -> bytes:
    """Raises OSError, and ValueError where it is too large to be one."""
    with path.open("rb") as stream:
        content = stream.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"it is larger than {_LARGEST_FILE // 1024} KiB")
    return content
