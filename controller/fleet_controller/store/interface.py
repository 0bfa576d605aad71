"""The store of desired state, as the controller sees it. etcd stands behind it; nothing above this module knows that.

Keys are text, values bytes. Every write is one transaction that states what it expects to find. Revisions are etcd's: one
counter for the whole store, that each transaction with an effect raises by one.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass


class StoreError(Exception):
    """A store operation failed; the message is a sentence."""


class StoreUnavailable(StoreError):  # noqa: N818 (reads as a sentence where it is caught)
    """The store cannot be reached or has no quorum. A write that raised this may or may not have happened."""


class Conflict(StoreError):  # noqa: N818
    """An expectation did not hold; nothing was written."""


@dataclass(frozen=True, slots=True)
class Item:
    key: str
    value: bytes
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything below a prefix at one revision."""

    revision: int
    items: Mapping[str, Item]


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened below a prefix up to `revision`, in order; a key deleted maps to None in its pair."""

    revision: int
    changes: Sequence[tuple[str, Item | None]]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Expect `key` to have been written last at `mod_revision`; 0: not to exist."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Created:
    """Expect `key` to have been created at `create_revision`, whatever was written to it since: the leader's fence."""

    key: str
    create_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Lease:
    identifier: int
    seconds: int


class Store(ABC):
    """Each call ends within its timeout (seconds), by raising StoreUnavailable if need be."""

    @abstractmethod
    async def read(self, prefix: str, *, timeout: float = 5.0) -> Snapshot:
        """Everything whose key starts with `prefix`, linearizable."""

    @abstractmethod
    async def commit(
        self,
        expectations: Sequence[Unchanged | Created],
        operations: Sequence[Put | Delete],
        *,
        timeout: float = 5.0,
    ) -> int:
        """Write all operations in one transaction if all expectations hold; returns its revision.

        Raises Conflict with nothing written. Never retried in here: after StoreUnavailable the caller reads what became of it.
        """

    @abstractmethod
    def follow(self, prefix: str) -> AsyncIterator[Snapshot | Changes]:
        """First a Snapshot, then Changes for ever, none missed and in order; resumes by itself after broken streams.

        After a compaction overtook it, yields a new Snapshot instead of the changes it can no longer have. Never raises
        StoreUnavailable: it waits. Close the iterator (aclose) to end it.
        """

    @abstractmethod
    async def grant_lease(self, seconds: int, *, timeout: float = 5.0) -> Lease: ...

    @abstractmethod
    async def keep_lease(self, lease: Lease, *, timeout: float = 5.0) -> bool:
        """Renew once, now. False: the lease is gone."""

    @abstractmethod
    async def revoke_lease(self, lease: Lease, *, timeout: float = 5.0) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...
