"""Restores that break off, and one without a leader; an artifact store whose disk is full."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

from fleet_controller.records import FLEET_KEY, FleetRecord
from fleet_controller.store.interface import Put
from tests.faults.outages.cluster_fleet import ClusterFleet
from tests.integration.fleet.harness import MOODY_SERVER, wait_for
from tests.integration.full_disk import needs_mounts, small_disk


def test_a_half_restore_halts_until_it_was_done_again_with_or_without_a_leader(tmp_path: Path) -> None:
    """Guards invariants 3, 4 and 6."""
    with ClusterFleet(tmp_path, hosts=1, members=1) as fleet:
        fleet.start()
        fleet.start_app(2)
        before = fleet.pids()
        backup = str(tmp_path / "backup")
        fleet.do("backup", backup)
        refused = fleet.run_program("fleet-controller", "restore", backup, "--config", str(tmp_path / "c1.toml"))
        assert refused.code == 5
        assert "controller c1 leads: use `fleetctl restore" in refused.errors

        # As a leader leaves it that was killed after the first of a restore's transactions.
        fleet.end_daemon("c1", signal.SIGKILL)
        asyncio.run(_mark(fleet, "began"))
        fleet.start_daemon("c1")
        wait_for(lambda: any("has not ended" in notice for notice in fleet.notices()), "status says so", 40)
        assert fleet.run("set-size", "my-app", "3", "--yes").code == 5
        assert fleet.run("backup", str(tmp_path / "none")).code == 5
        fleet.do("restore", backup, "--yes")
        wait_for(fleet.whole, "every host is back", 60)
        assert fleet.notices() == []

        fleet.end_daemon("c1")
        command = ("fleet-controller", "restore", backup, "--config", str(tmp_path / "c1.toml"))
        done = fleet.run_program(*command)
        assert done.code == 0, done
        fleet.start_daemon("c1")
        wait_for(fleet.whole, "every host is back", 60)
        fleet.do("set-size", "my-app", "3", "--yes")
        assert before < fleet.pids()
        assert fleet.ask("info")["epoch"].partition(".")[0] == "4"


def test_a_rollout_that_was_under_way_is_paused_and_can_go_on(tmp_path: Path) -> None:
    """Guards invariants 3 and 6."""
    with ClusterFleet(tmp_path, hosts=1, members=1) as fleet:
        fleet.start()
        fleet.start_app(3, "--canary", "1")
        fleet.do("env-set", "my-app", "COLOUR=blue", "--no-wait")
        wait_for(lambda: fleet.ask("ls")[0]["rollout"]["awaits_promotion"], "the canary waits", 60)
        backup = str(tmp_path / "backup")
        fleet.do("backup", backup)
        fleet.do("rollout", "abort", "my-app")
        wait_for(lambda: not fleet.ask("ls")[0]["rollout"]["state"].startswith("r"), "it went back", 60)
        before = fleet.pids()

        assert "my-app: its rollout is paused" in fleet.do("restore", backup, "--yes")
        wait_for(fleet.whole, "every host is back", 60)
        assert fleet.pids() == before
        assert "paused when etcd was restored" in fleet.do("status", "my-app")
        fleet.do("rollout", "resume", "my-app", "--no-wait")
        wait_for(lambda: fleet.ask("ls")[0]["rollout"]["awaits_promotion"], "a canary waits again", 60)
        fleet.do("rollout", "promote", "my-app")
        # What a later rollout had replaced already, which etcd has lost, stays until the next one.
        fleet.do("soft-restart", "my-app")
        assert not before & fleet.pids()
        assert {worker["revision"] for worker in fleet.ask("ps", "my-app") if worker["ready"]} == {2}


@needs_mounts
def test_an_artifact_store_on_a_full_disk_refuses_uploads_in_one_line_and_takes_them_later(tmp_path: Path) -> None:
    """Guards invariant 10."""
    code = tmp_path / "code"
    shutil.copytree(MOODY_SERVER.parent, code)
    (code / "weight").write_bytes(os.urandom(2_000_000))
    with small_disk(tmp_path / "c1" / "state") as disk, ClusterFleet(tmp_path, hosts=1, members=1) as fleet:
        fleet.start()
        fleet.start_app(2)
        before = fleet.pids()
        disk.fill()
        refused = fleet.run("deploy", "my-app", str(code), "--no-build", "--run", "node moody_server.js")
        assert refused.code == 5, refused
        (line,) = refused.error_lines
        assert "disk is full" in line
        assert fleet.pids() == before
        disk.free()
        fleet.do("deploy", "my-app", str(code), "--no-build", "--run", "node moody_server.js")
        assert not before & fleet.pids()


async def _mark(fleet: ClusterFleet, digest: str) -> None:
    store = fleet.cluster.store()
    try:
        item = (await store.read(FLEET_KEY)).items[FLEET_KEY]
        record = FleetRecord.decode(item.value)
        marked = record.model_copy(update={"era": record.era + 1, "restoring": digest})
        await store.commit([], [Put(FLEET_KEY, marked.encode())])
    finally:
        await store.close()
