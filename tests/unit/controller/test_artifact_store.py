"""The store of deployed code: what arrives in pieces, damaged, twice or too much."""

import hashlib
from pathlib import Path

import pytest

from fleet_controller.artifacts import (
    FRESH_SECONDS,
    PARTIAL_SECONDS,
    UNUSED_SECONDS,
    ArtifactError,
    ArtifactStore,
    chunks_of,
)

_CONTENT = b"code" * 1000
_DIGEST = hashlib.sha256(_CONTENT).hexdigest()


class _Time:
    now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Time:
    return _Time()


@pytest.fixture
def store(tmp_path: Path, clock: _Time) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", 10_000, clock)


def _put(store: ArtifactStore, content: bytes, in_use: tuple[str, ...] = ()) -> str:
    digest = hashlib.sha256(content).hexdigest()
    with store.receiving(digest, len(content), 0, in_use) as receipt:
        receipt.write(content)
        receipt.finish()
    store.received(digest)  # its time is the clock's now
    return digest


def test_what_arrived_whole_is_there(store: ArtifactStore) -> None:
    assert store.received(_DIGEST) == (0, False)
    assert _put(store, _CONTENT) == _DIGEST

    assert store.received(_DIGEST) == (len(_CONTENT), True)
    path = store.path(_DIGEST)
    assert path is not None
    assert b"".join(chunks_of(path, 0)) == _CONTENT
    assert b"".join(chunks_of(path, 3990)) == _CONTENT[3990:]
    assert [*chunks_of(path, len(_CONTENT))] == [b""]


def test_an_upload_that_broke_goes_on_where_it_ended(store: ArtifactStore) -> None:
    with store.receiving(_DIGEST, len(_CONTENT), 0, ()) as receipt:
        receipt.write(_CONTENT[:1000])
    assert store.received(_DIGEST) == (1000, False)
    assert store.path(_DIGEST) is None
    with store.receiving(_DIGEST, len(_CONTENT), 1000, ()) as receipt:
        receipt.write(_CONTENT[1000:])
        receipt.finish()

    assert store.received(_DIGEST) == (len(_CONTENT), True)


@pytest.mark.parametrize("offset", [0, 999, 1001])
def test_it_goes_on_nowhere_else(store: ArtifactStore, offset: int) -> None:
    with store.receiving(_DIGEST, len(_CONTENT), 0, ()) as receipt:
        receipt.write(_CONTENT[:1000])

    with pytest.raises(ArtifactError, match="cannot go on"), store.receiving(_DIGEST, len(_CONTENT), offset, ()):
        pass


def test_other_bytes_than_promised_are_deleted(store: ArtifactStore) -> None:
    with store.receiving(_DIGEST, len(_CONTENT), 0, ()) as receipt:
        receipt.write(_CONTENT[:-1] + b"!")
        with pytest.raises(ArtifactError, match="say it again"):
            receipt.finish()

    assert store.received(_DIGEST) == (0, False)


def test_more_or_less_than_announced_is_refused(store: ArtifactStore) -> None:
    with store.receiving(_DIGEST, len(_CONTENT), 0, ()) as receipt:
        receipt.write(_CONTENT[:10])
        with pytest.raises(ArtifactError, match="ended at 10"):
            receipt.finish()
        with pytest.raises(ArtifactError, match="more than the announced"):
            receipt.write(_CONTENT)


def test_two_cannot_send_the_same_at_once(store: ArtifactStore) -> None:
    opened = store.receiving(_DIGEST, len(_CONTENT), 0, ())
    with opened, pytest.raises(ArtifactError, match="somebody else"), store.receiving(_DIGEST, len(_CONTENT), 0, ()):
        pass


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "/"])
def test_what_is_no_digest_names_no_file(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(ArtifactError, match="not a SHA-256"):
        store.path(digest)


def test_code_that_nothing_names_goes_after_a_day(store: ArtifactStore, clock: _Time) -> None:
    used, unused = _put(store, b"used"), _put(store, b"unused")
    clock.now += UNUSED_SECONDS + 1
    store.prune({used})

    assert store.path(used)
    assert store.path(unused) is None


def test_the_quota_takes_unused_code_that_is_not_fresh_and_nothing_else(store: ArtifactStore, clock: _Time) -> None:
    used, unused = _put(store, b"a" * 4000), _put(store, b"b" * 4000)
    with pytest.raises(ArtifactError, match="full"):
        _put(store, b"c" * 4000, (used,))
    clock.now += FRESH_SECONDS + 1
    new = _put(store, b"c" * 4000, (used,))

    assert store.path(used)
    assert store.path(new)
    assert store.path(unused) is None


def test_a_part_that_nobody_adds_to_goes_after_a_day(tmp_path: Path, store: ArtifactStore, clock: _Time) -> None:
    with store.receiving(_DIGEST, len(_CONTENT), 0, ()) as receipt:
        receipt.write(b"x")
    part = next((tmp_path / "store").glob("*.part"))
    clock.now = part.stat().st_mtime + PARTIAL_SECONDS - 1
    store.prune({_DIGEST})
    assert store.received(_DIGEST) == (1, False)
    clock.now += 2
    store.prune({_DIGEST})

    assert store.received(_DIGEST) == (0, False)
