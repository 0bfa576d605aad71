"""The main job in `port` mode with each Node that is supported: a soft restart under load fails no request."""

from pathlib import Path

import pytest

from tests.integration.fleet.harness import Fleet, load_on
from tests.integration.fleet.judge import assert_none_failed, journals_show
from tests.integration.node_versions import VERSIONS, node_folder

_SIZE = 6


@pytest.mark.parametrize("version", VERSIONS)
def test_a_soft_restart_fails_no_request_with_this_node(fleet: Fleet, app_script: Path, version: str) -> None:
    """Guards invariants 1, 2 and 7."""
    name = f"node{version}"
    node = node_folder(version) / "node"
    address = fleet.start_app(app_script, _SIZE, name=name, first_on_path=node.parent)
    try:
        before = fleet.pids(name)
        assert {Path(f"/proc/{pid}/exe").readlink() for pid in before} == {node.resolve()}
        with load_on(address, fleet.folder) as load:
            with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3, app=name):
                outcome = fleet.ask("soft-restart", name)
            load.wait_for_more(100)
            summary = load.stop()
        after = fleet.pids(name)
    finally:
        fleet.do("remove", name, "--yes")

    assert_none_failed(summary)
    assert len(after) == _SIZE
    assert not before & after
    assert (outcome["state"], outcome["replaced"]) == ("done", _SIZE)
    assert {int(pid) for pid in summary["pids"]} >= after
