"""Which certificate is used for which host: given ones, those made here, and what an operator is told."""

import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_balancer.certificates import pem
from fleet_balancer.certificates.store import CertificateStore

_NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
_DAY = datetime.timedelta(days=1)


class Scene:
    def __init__(self, folder: Path) -> None:
        self.given = folder / "given"
        self.given.mkdir()
        self.made = folder / "made"
        self.now = _NOW
        self.store = self.restarted()

    def restarted(self) -> CertificateStore:
        return CertificateStore(self.given, self.made, ("lb1", "127.0.0.1"), lambda: self.now)

    def give(self, file: str, *names: str, expires: datetime.timedelta = 90 * _DAY) -> pem.Certificate:
        made = pem.self_signed(names[0], names[1:], _NOW - 397 * _DAY + expires)
        (self.given / file).write_bytes(made.pem)
        return made

    def shown(self, *hosts: str) -> list[frozenset[str]]:
        return [one.names for one in self.store.select(hosts).certificates]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def named(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_hosts_that_nothing_covers_get_one_signed_by_itself(scene: Scene) -> None:
    scene.give("shop.pem", "shop.test", "*.shop.test")
    assert scene.shown("shop.test", "a.shop.test", "a.b.shop.test", "*.shop.test", "*.x.test") == [
        named("lb1"),
        named("shop.test", "*.shop.test"),
        named("*.x.test"),
        named("a.b.shop.test"),
    ]
    told = list(scene.store.select(["shop.test", "other.test"]).notices)
    assert told == ["no certificate is given for other.test: clients get one signed by itself"]


def test_the_given_default_comes_first_and_once(scene: Scene) -> None:
    scene.give("a.pem", "a.test")
    scene.give("default.pem", "any.test")
    assert scene.shown("a.test") == [named("any.test"), named("a.test")]
    assert not scene.made.exists()


def test_of_two_for_one_name_the_one_that_lasts_longer_is_used(scene: Scene) -> None:
    old = scene.give("a.pem", "a.test", expires=20 * _DAY)
    new = scene.give("b.pem", "a.test", expires=80 * _DAY)
    pems = [one.pem for one in scene.store.select(["a.test"]).certificates]
    assert pems[1:] == [new.pem, old.pem]


def test_what_was_made_is_kept_over_a_restart_and_renewed_before_it_expires(scene: Scene) -> None:
    first = scene.store.select(["a.test"])
    assert scene.restarted().select(["a.test"]) == first
    scene.now += 380 * _DAY
    assert scene.restarted().select(["a.test"]) == first
    scene.now += 5 * _DAY
    assert all(one.not_after > scene.now + 300 * _DAY for one in scene.restarted().select(["a.test"]).certificates)
    assert scene.store.select(["a.test"]).digest != first.digest
    assert [path.stat().st_mode & 0o777 for path in scene.made.iterdir()] == [0o600, 0o600]


def test_what_is_given_replaces_what_was_made_and_what_is_taken_away_is_gone(scene: Scene) -> None:
    made = scene.store.select(["a.test"])
    given = scene.give("a.pem", "a.test")
    assert [one.pem for one in scene.store.select(["a.test"]).certificates][1:] == [given.pem]
    (scene.given / "a.pem").unlink()
    assert scene.store.select(["a.test"]) == made


def test_a_file_that_cannot_be_read_leaves_the_last_one_in_use_and_is_told(scene: Scene) -> None:
    good = scene.give("a.pem", "a.test")
    scene.store.select(["a.test"])
    other_key = pem.self_signed("other.test").pem
    cut = good.pem.index(b"-----BEGIN PRIVATE KEY")
    for content, words in (
        (b"", "is not used: it holds no private key"),
        (good.pem[:cut], "is not used: it holds no private key"),
        (good.pem[cut:], "is not used: it holds no certificate"),
        (
            good.pem[:cut] + other_key[other_key.index(b"-----BEGIN PRIVATE KEY") :],
            "its key is not that of a certificate",
        ),
        (good.pem + other_key, "it holds 2 private keys, not one"),
        (good.pem[:60] + b"!" * 20 + good.pem[80:], "it is not PEM that can be read"),
        (good.pem[:cut] + encrypted_key(), "its key is encrypted"),
        (b"x" * 300_000, "it is larger than 256 KiB"),
    ):
        (scene.given / "a.pem").write_bytes(content)
        selection = scene.store.select(["a.test"])
        assert [one.pem for one in selection.certificates][1:] == [good.pem]
        assert [words in line for line in selection.notices] == [True], words
    (scene.given / "a.pem").write_bytes(good.pem)
    assert list(scene.store.select(["a.test"]).notices) == []


def encrypted_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_certbots_folder_is_read(scene: Scene) -> None:
    """Its files are links that are moved to new ones."""
    archive = scene.given.parent / "archive"
    archive.mkdir()
    live = scene.given / "a.test"
    live.mkdir()
    (scene.given / "README").write_text("about this folder")
    seen = []
    for number in (1, 2):
        made = pem.self_signed("a.test", (), _NOW)
        cut = made.pem.index(b"-----BEGIN PRIVATE KEY")
        for file, content in (("fullchain", made.pem[:cut]), ("privkey", made.pem[cut:])):
            (archive / f"{file}{number}.pem").write_bytes(content)
            (live / f"{file}.pem").unlink(missing_ok=True)
            (live / f"{file}.pem").symlink_to(archive / f"{file}{number}.pem")
        seen.append([one.pem for one in scene.store.select(["a.test"]).certificates][1:] == [made.pem])
    assert seen == [True, True]


def test_a_key_that_stands_before_its_chain_is_found(scene: Scene) -> None:
    made = pem.self_signed("a.test", ("b.test",))
    other = pem.self_signed("authority.test")
    cuts = [one.pem.index(b"-----BEGIN PRIVATE KEY") for one in (made, other)]
    content = made.pem[cuts[0] :] + other.pem[: cuts[1]] + made.pem[: cuts[0]]
    read = pem.read(content, "a.pem")
    assert read.names == named("a.test", "b.test")
    assert read.pem == made.pem[: cuts[0]] + other.pem[: cuts[1]] + made.pem[cuts[0] :]


def test_who_expires_soon_is_told(scene: Scene) -> None:
    for days, words in (
        (15, None),
        (13, f"certificate {scene.given}/a.pem expires on 2026-11-14"),
        (-1, "has expired"),
    ):
        scene.give("a.pem", "a.test", expires=days * _DAY)
        told = list(scene.store.select(["a.test"]).notices)
        assert (told == []) if words is None else words in told[0]


def test_no_certificate_at_all_is_told(scene: Scene) -> None:
    assert list(scene.store.select([]).notices) == ["no certificate is given: clients get one signed by itself"]
