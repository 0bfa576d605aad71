"""etcd without a quorum, slow, or full: what runs goes on, what is asked for is refused in one line, and all of it heals."""

import os
import shutil
import signal
from pathlib import Path

from tests.faults.outages.cluster_fleet import ClusterFleet
from tests.integration.fleet.harness import load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed


def test_without_a_quorum_everything_goes_on_but_changes_and_it_heals_by_itself(tmp_path: Path) -> None:
    """Guards invariants 3, 5, 6, 7 and 10."""
    with ClusterFleet(tmp_path) as fleet:
        fleet.start()
        address = fleet.start_app(4)
        before = fleet.pids()

        # One member that stands still for seconds costs a term at most: where etcd is old and slow to elect, the one that wakes
        # up ends the leases it remembers, as if it still led (etcd's issue 15247).
        frozen = fleet.etcd_leader()
        frozen.stop()
        try:
            fleet.do("host", "label", "host1", "while=frozen")
        finally:
            frozen.resume()
        fleet.do("host", "label", "host1", "then=thawed")
        assert fleet.pids() == before

        # No POST: one that a worker was at cannot be saved from its kill -9.
        with load_on(address, fleet.folder, "--post-share", "0") as load:
            for member in fleet.cluster.members[:2]:
                member.kill()
            wait_for(lambda: any("etcd does not answer" in notice for notice in fleet.notices()), "status says so", 30)
            refused = fleet.run("set-size", "my-app", "6", "--yes")
            assert refused.code == 5, refused
            (line,) = refused.error_lines
            assert "etcd does not answer, so nothing can be changed now; what runs goes on" in line
            assert fleet.run("backup", str(tmp_path / "none")).code == 5

            # Endpoints are still sent as they are seen: one that dies leaves, and its successor comes.
            killed = min(before)
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: len(fleet.pids()) == 4 and killed not in fleet.pids(), "the worker is back")
            wait_for(lambda: _upstreams(fleet) == ["ready"] * 4, "and in the list", 30)
            load.wait_for_more(200)

            for member in fleet.cluster.members[:2]:
                member.start()
            wait_for(lambda: fleet.run("set-size", "my-app", "6", "--yes").code == 0, "changes are taken again", 60)
            load.wait_for_more(200)
            summary = load.stop()

        assert summary["failed"] == 0, summary["details"][:10]
        assert (before - {killed}) < fleet.pids()
        assert fleet.ask("host", "ls")[0]["labels"]["while"] == "frozen"


def test_a_full_etcd_refuses_changes_in_one_line_and_goes_on_once_it_was_mended(tmp_path: Path) -> None:
    """Guards invariants 6 and 10: docs/recovery.md, "etcd is full"."""
    with ClusterFleet(tmp_path, hosts=1, members=1, etcd_options=["--quota-backend-bytes=4194304"]) as fleet:
        fleet.start()
        address = fleet.start_app(2)
        before = fleet.pids()
        with load_on(address, fleet.folder) as load:
            while fleet.etcdctl("put", "junk", "x" * 100_000).returncode == 0:
                pass
            refused = fleet.run("set-size", "my-app", "3", "--yes")
            assert refused.code == 5, refused
            (line,) = refused.error_lines
            assert line.startswith("fleetctl: nothing was changed: etcd's database has reached its quota")
            assert any("has reached its quota" in notice for notice in fleet.notices())

            fleet.mend_full_etcd()
            fleet.do("set-size", "my-app", "3", "--yes")
            assert fleet.notices() == []
            load.wait_for_more(100)
            assert_none_failed(load.stop())
        assert before < fleet.pids()


def test_a_member_that_is_lost_for_good_is_replaced(tmp_path: Path) -> None:
    """Guards invariants 3 and 5: docs/recovery.md, "etcd has no quorum"."""
    with ClusterFleet(tmp_path) as fleet:
        fleet.start()
        fleet.start_app(2)
        before = fleet.pids()
        lost = fleet.cluster.members[2]
        lost.kill()
        shutil.rmtree(lost.data_dir)
        fleet.do("set-size", "my-app", "3", "--yes")
        fleet.replace_member(2)
        # Without the new member there would be no quorum now.
        fleet.cluster.members[1].kill()
        wait_for(
            lambda: fleet.run("set-size", "my-app", "4", "--yes").code == 0, "a change is taken by two of them", 60
        )
        assert before < fleet.pids()
        assert len(fleet.pids()) == 4


def _upstreams(fleet: ClusterFleet) -> list[str]:
    (pool,) = fleet.ask("balancer", "upstreams", "my-app")
    return [endpoint["state"] for endpoint in pool["endpoints"]]
