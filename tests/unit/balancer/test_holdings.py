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
