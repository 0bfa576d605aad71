import errno
from pathlib import Path

import pytest

from fleet.v1 import balancer_pb2
from fleet_balancer.holdings import Holdings, HoldingsError
from fleet_core.ids import Epoch


def test_uid_epoch_and_lists_survive(tmp_path: Path) -> None:
    """Guards invariant 4."""
    first = Holdings(tmp_path)
    first.obey(Epoch(1, 5))
    pool = balancer_pb2.Pool(name="web", version=3)
    pool.route.http = "127.0.0.1:8080"
    first.stand({"web": pool})
    second = Holdings(tmp_path)
    assert (second.uid, second.epoch, second.messages) == (first.uid, Epoch(1, 5), {"web": pool})
    with pytest.raises(ValueError, match=r"epoch 1\.4 is older than 1\.5"):
        second.obey(Epoch(1, 4))
    second.obey(Epoch(2, 1))
    assert Holdings(tmp_path).epoch == Epoch(2, 1)


@pytest.mark.parametrize("name", ["epoch.json", "lists.json"])
def test_a_damaged_file_is_named_not_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    with pytest.raises(HoldingsError, match=name):
        Holdings(tmp_path)


def test_lists_of_an_older_etcd_are_refused_until_the_era_was_raised(tmp_path: Path) -> None:
    """Guards invariant 4."""
    holdings = Holdings(tmp_path)
    holdings.obey(Epoch(1, 5))
    holdings.belong("f1")
    holdings.check_told(200)
    holdings.tell(200)
    again = Holdings(tmp_path)
    assert (again.fleet_id, again.etcd_revision) == ("f1", 200)
    again.obey(Epoch(1, 9))
    with pytest.raises(ValueError, match="told of 200: etcd is older than the fleet"):
        again.check_told(150)
    with pytest.raises(ValueError, match="leads fleet f2, this balancer obeys f1"):
        again.belong("f2")
    again.obey(Epoch(2, 3))
    again.check_told(9)
    assert again.etcd_revision == 0


def test_a_disk_that_refuses_stops_nothing_and_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holdings = Holdings(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fleet_balancer.holdings.write_durably", full)
        holdings.obey(Epoch(1, 5))
        holdings.stand({"web": balancer_pb2.Pool(name="web", version=3)})
        assert holdings.behind
        assert "epoch.json" in holdings.trouble or "lists.json" in holdings.trouble
        with pytest.raises(ValueError, match="older"):
            holdings.obey(Epoch(1, 4))
    assert Holdings(tmp_path).epoch == Epoch()
    holdings.catch_up()
    assert (holdings.behind, holdings.trouble) == (False, "")
    again = Holdings(tmp_path)
    assert (again.epoch, again.messages["web"].version) == (Epoch(1, 5), 3)
