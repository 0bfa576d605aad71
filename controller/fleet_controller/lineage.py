"""Whether this etcd is the fleet's, and as new as what the fleet was told; until it is, nothing may be acted on.

An etcd that was put back to an older copy looks like any other. What gives it away is what agents and balancers remember on their
disks of the leaders they obeyed: the fleet's id, the highest epoch, and, of that era, etcd's revision after the last change they
were told of. All changes of a term are made under its fence: in one history of etcd they come after the term's own beginning and
before that of the next. See docs/adr/0019-the-era-and-restoring.md.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from fleet_controller.leader import LEADER_KEY, Term
from fleet_controller.records import FLEET_KEY, FleetRecord
from fleet_controller.store.interface import Conflict, Put, Store, StoreError, Unchanged
from fleet_core.ids import Epoch

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
FIRST_ERA = 1
NEXT_STEP = (
    "`fleetctl restore FILE` puts a backup in its place; to go on with what etcd holds, restore a backup taken now"
)


class Halted(StoreError):  # noqa: N818 (reads as a sentence where it is caught)
    """Nothing may be written: this etcd is not to be trusted. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an agent or a balancer says in its hello."""

    who: str
    """ "host prod1"."""
    uid: str
    fleet_id: str
    highest: Epoch
    etcd_revision: int
    """0: it says nothing of it."""


async def establish(store: Store, term: Term) -> FleetRecord | None:
    """The fleet's record, made now where there is none. None: the term ended first."""
    while not term.lost.is_set():
        try:
            item = (await store.read(FLEET_KEY)).items.get(FLEET_KEY)
            if item is not None:
                return FleetRecord.decode(item.value)
            record = FleetRecord(id=str(uuid.uuid4()), era=FIRST_ERA)
            revision = await store.commit([term.fence(), Unchanged(FLEET_KEY, 0)], [Put(FLEET_KEY, record.encode())])
        except Conflict:
            pass
        except ValidationError as error:
            _log.error("%s cannot be read, so nothing is led: %s", FLEET_KEY, error.errors()[0]["msg"])
        except StoreError as error:
            _log.warning("the fleet's record is not known yet: %s", error)
        else:
            term.committed(revision)
            _log.info("this etcd is a new fleet's: %s", record.id)
            return record
        await asyncio.sleep(_RETRY_SECONDS)
    return None


class Lineage:
    """Lives as long as one term; what it finds out stays found out until the term ends."""

    def __init__(self, fleet: FleetRecord, store: Store, term: Term, inhabited: Callable[[], bool]) -> None:
        """`inhabited`: whether etcd knows of any host or app."""
        self.fleet = fleet
        self.epoch = Epoch(fleet.era, term.create_revision)
        self.highest_era = fleet.era
        """Of all that were heard of."""
        self.trouble = ""
        """Why nothing may be acted on, and what to do; empty: all is well."""
        self.on_trouble: Callable[[], None] = lambda: None
        self._store = store
        self._term = term
        self._inhabited = inhabited
        self._welcomed: set[str] = set()
        if fleet.restoring:
            self._halt(
                "a restore of etcd began and has not ended: say `fleetctl restore FILE` again with the same backup"
            )

    def require_sound(self) -> None:
        """Raises Halted."""
        if self.trouble:
            raise Halted(self.trouble)

    def halt(self, why: str) -> None:
        """Let nothing be acted on until the term ends."""
        self._halt(why)

    def went_back(self, revision: int, known: int) -> None:
        """etcd itself showed a revision below one that it had reached in this term."""
        self._halt(_older(f"it is at revision {revision} after it was at {known}"))

    async def check(self, peer: Remembered) -> str:
        """Why the peer cannot be served, in words; empty: it can."""
        self.highest_era = max(self.highest_era, peer.highest.era)
        if peer.fleet_id and peer.fleet_id != self.fleet.id:
            return self._of_another_fleet(peer)
        why = self._later(peer)
        if why:
            try:
                standing = (await self._store.read(LEADER_KEY, timeout=1.0)).items.get(LEADER_KEY)
            except StoreError as error:
                return f"{why}, and whether this controller still leads cannot be found out: {error}"
            if standing is None or standing.create_revision != self._term.create_revision:
                return f"{why}: another controller leads"
            self._halt(_older(why))
        if not self.trouble:
            self._welcomed.add(peer.uid)
        return self.trouble

    def _of_another_fleet(self, peer: Remembered) -> str:
        if not self._inhabited():
            self._halt(
                f"etcd is older than the fleet: it is empty, and {peer.who} obeyed fleet {peer.fleet_id} already; "
                f"nothing is acted on: {NEXT_STEP}"
            )
            return self.trouble
        return (
            f"{peer.who} belongs to fleet {peer.fleet_id}, this is fleet {self.fleet.id}: to let it join here, stop its service "
            "and remove its state folder"
        )

    def _later(self, peer: Remembered) -> str:
        """Why the peer must have obeyed a leader that is not of this etcd's past; empty: nothing says so."""
        newest = self._term.newest
        if peer.highest > self.epoch:
            return f"{peer.who} obeyed epoch {peer.highest}, later than this controller's {self.epoch}"
        if peer.highest == self.epoch and peer.uid not in self._welcomed:
            return f"{peer.who} obeyed epoch {peer.highest}, which this controller has only just begun"
        told = peer.etcd_revision if peer.highest.era == self.epoch.era else 0
        if peer.highest == self.epoch and told > newest:
            return f"{peer.who} was told of revision {told}, later than the last change, {newest}"
        if peer.highest < self.epoch and told >= self._term.create_revision:
            return f"{peer.who} was told of revision {told} in epoch {peer.highest}, which ended before that"
        return ""

    def _halt(self, why: str) -> None:
        if not self.trouble:
            self.trouble = why
            _log.error("%s", why)
            self.on_trouble()


def _older(why: str) -> str:
    return f"etcd is older than the fleet: {why}; nothing is acted on: {NEXT_STEP}"
