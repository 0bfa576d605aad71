"""The store of desired state, as the controller sees it. etcd stands behind it; nothing above this module knows that.

Keys are text, values bytes. Every write is one transaction that states what it expects to find. Revisions are etcd's: one
counter for the whole store, that each transaction with an effect raises by one.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass


class StoreError(Exception):
    """A store operation failed; the message is a sentence."""


class StoreUnavailable(StoreError):  # noqa: N818 (reads as a sentence where it is caught)
    """The store cannot be reached or has no quorum. A write that raised this may or may not have happened."""


class StoreFull(StoreError):  # noqa: N818
    """The store takes no more; nothing was written."""


class Conflict(StoreError):  # noqa: N818
    """An expectation about `key` did not hold; nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not as it was expected to be; nothing was written.")
        self.key = key


class LeaseGone(StoreError):  # noqa: N818
    """A lease that a Put names has expired or was revoked; nothing was written."""


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

        Raises Conflict or LeaseGone with nothing written, and StoreError for operations the store refuses, such as two on one
        key. Never retried in here: after StoreUnavailable the caller reads what became of it.
        """

    @abstractmethod
    def follow(self, prefix: str) -> AsyncGenerator[Snapshot | Changes, None]:
        """First a Snapshot, then Changes for ever, none missed or repeated, in order; resumes by itself after broken streams.

        Changes hold whole revisions: what one transaction wrote comes together. After a compaction overtook it, or the store
        was put back to an older state, yields a new Snapshot instead of the changes it can no longer have. Never raises
        StoreUnavailable: it waits. Close the iterator (aclose) to end it; once the store is closed it raises StoreError.
        """

    @abstractmethod
    async def grant_lease(self, seconds: int, *, timeout: float = 5.0) -> Lease:
        """A lease that lasts at least `seconds` from now; keys put with it are deleted when it ends."""

    @abstractmethod
    async def keep_lease(self, lease: Lease, *, timeout: float = 5.0) -> bool:
        """Renew once, now. False: the lease is gone."""

    @abstractmethod
    async def revoke_lease(self, lease: Lease, *, timeout: float = 5.0) -> None:
        """End it now, and with it its keys. A lease already gone is no error."""

    @abstractmethod
    async def close(self) -> None: ...
