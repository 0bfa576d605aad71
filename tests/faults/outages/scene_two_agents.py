"""A second agent with a copy of the first one's folder: refused and shown while the first lives, let in once it is gone."""

import shutil
import signal
from pathlib import Path

from tests.faults.outages.cluster_fleet import ClusterFleet
from tests.integration.fleet.harness import wait_for


def test_a_copied_host_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """Guards invariants 3 and 6."""
    with ClusterFleet(tmp_path, hosts=1, members=1) as fleet:
        fleet.start()
        fleet.start_app(2)
        before = fleet.pids()
        copy = fleet.add_host("copy", name="host1")
        shutil.copytree(fleet.state_dir("host1"), fleet.state_dir("copy"), dirs_exist_ok=True)
        for daemon in copy:
            fleet.start_daemon(daemon)
        wait_for(lambda: "another live agent has this host's name and folder" in fleet.log("copy"), "the copy says so")
        wait_for(lambda: "is refused" in " ".join(fleet.ask("host", "ls")[0]["notices"]), "`host ls` says so", 40)
        assert "a second agent named host1" in fleet.do("status")
        assert fleet.pids() == before
        assert fleet.log("copy").count("another live agent") <= 3, "a log is not filled with it"

        fleet.end_daemon("copy", signal.SIGKILL)
        wait_for(lambda: fleet.ask("host", "ls")[0]["notices"] == [], "and then no more", 40)
        # A process that follows a killed one on the same folder is no second agent.
        fleet.end_daemon("host1", signal.SIGKILL)
        fleet.start_daemon("host1")
        wait_for(fleet.whole, "the restarted agent is let in")
        assert fleet.pids() == before

        fleet.start_daemon("copy")
        wait_for(lambda: fleet.log("copy").count("another live agent") >= 2, "the copy is refused again")
        fleet.end_daemon("host1", signal.SIGKILL)
        wait_for(lambda: "session with controller" in fleet.log("copy"), "the copy is let in", 40)
        assert before <= fleet.living(before), "what the first host ran runs on"
