"""The store of deployed code: what arrives in pieces, damaged, twice or too much."""

import hashlib
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_controller.artifact_homes import FolderHome, Home, ObjectHome, open_home
from fleet_controller.artifacts import (
    FRESH_SECONDS,
    PARTIAL_SECONDS,
    UNUSED_SECONDS,
    ArtifactError,
    ArtifactStore,
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


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Each kind of home, empty."""
    if request.param == "folder":
        return FolderHome(tmp_path / "store")
    pytest.importorskip("obstore")
    if request.param == "s3":
        return open_home(request.getfixturevalue("bucket"))
    return open_home("memory:///" if request.param == "memory" else f"file://{tmp_path}/objects")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty folder of a bucket, at a server that speaks S3."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        request = urllib.request.Request(f"http://{host}:{port}/artifacts", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield f"s3://artifacts/{uuid.uuid4()}"
    finally:
        server.stop()


@pytest.fixture
def store(tmp_path: Path, home: Home, clock: _Time) -> ArtifactStore:
    return ArtifactStore(home, tmp_path / "store", 10_000, clock)


def _put(store: ArtifactStore, content: bytes, in_use: tuple[str, ...] = ()) -> str:
    digest = hashlib.sha256(content).hexdigest()
    with store.receiving(digest, len(content), 0, in_use) as receipt:
        receipt.write(content)
        receipt.finish()
    store.received(digest)  # its time is the clock's now
    return digest


def test_what_arrived_whole_is_there(tmp_path: Path, store: ArtifactStore) -> None:
    assert store.received(_DIGEST) == (0, False)
    assert _put(store, _CONTENT) == _DIGEST

    assert store.received(_DIGEST) == (len(_CONTENT), True)
    assert store.size(_DIGEST) == len(_CONTENT)
    assert b"".join(store.chunks(_DIGEST, 0)) == _CONTENT
    assert b"".join(store.chunks(_DIGEST, 3990)) == _CONTENT[3990:]
    assert b"".join(store.chunks(_DIGEST, len(_CONTENT))) == b""
    assert [path.name for path in (tmp_path / "store").iterdir()] in ([], [_DIGEST])


def test_an_upload_that_broke_goes_on_where_it_ended(store: ArtifactStore) -> None:
    with store.receiving(_DIGEST, len(_CONTENT), 0, ()) as receipt:
        receipt.write(_CONTENT[:1000])
    assert store.received(_DIGEST) == (1000, False)
    assert store.size(_DIGEST) is None
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
        store.size(digest)


def test_code_that_nothing_names_goes_after_a_day(store: ArtifactStore, clock: _Time) -> None:
    used, unused = _put(store, b"used"), _put(store, b"unused")
    clock.now += UNUSED_SECONDS + 1
    store.prune({used})

    assert store.size(used)
    assert store.size(unused) is None


def test_the_quota_takes_unused_code_that_is_not_fresh_and_nothing_else(store: ArtifactStore, clock: _Time) -> None:
    used, unused = _put(store, b"a" * 4000), _put(store, b"b" * 4000)
    with pytest.raises(ArtifactError, match="full"):
        _put(store, b"c" * 4000, (used,))
    clock.now += FRESH_SECONDS + 1
    new = _put(store, b"c" * 4000, (used,))

    assert store.size(used)
    assert store.size(new)
    assert store.size(unused) is None


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


def test_what_revisions_name_and_is_not_here_is_known(store: ArtifactStore) -> None:
    assert store.missing({_put(store, b"a"), _DIGEST}) == {_DIGEST}


@pytest.mark.parametrize(
    ("where", "said"), [("ftp://host/x", "ftp:// is no object store"), ("s3://", "cannot be used")]
)
def test_a_url_that_leads_nowhere_is_refused_in_a_line(where: str, said: str) -> None:
    pytest.importorskip("obstore")
    with pytest.raises(ValueError, match=said) as caught:
        open_home(where)
    assert "\n" not in str(caught.value)


def test_a_store_of_objects_that_does_not_answer_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    from obstore.store import from_url

    home = ObjectHome(
        from_url(
            "s3://bucket",
            endpoint="http://127.0.0.1:9",
            region="us-east-1",
            skip_signature=True,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        ),
        "s3://bucket",
    )
    with pytest.raises(OSError, match="object store s3://bucket: ") as caught:
        home.size(_DIGEST)
    assert "\n" not in str(caught.value)
