"""Code sent to three hosts, under load: rolled out, refused where it does not build, and taken back."""

import json
import urllib.request
from pathlib import Path

import pytest

from tests.faults.deploy_deaths import Death, run
from tests.integration.fleet.harness import PLAIN_SERVER, Fleet, load_on
from tests.integration.fleet.judge import assert_none_failed, journals_show
from tests.ports import free_address

_SIZE = 6
_ANSWER = """
const fs = require('node:fs');
const words = fs.readFileSync(require('node:path').join(__dirname, 'words.txt'), 'utf8');
const built = fs.existsSync('built.txt') ? fs.readFileSync('built.txt', 'utf8') : '';
require('node:http').Server.prototype.on = ((on) => function (event, listener) {
  if (event !== 'request') return on.call(this, event, listener);
  return on.call(this, event, (request, response) => {
    if (request.url !== '/words') return listener(request, response);
    response.end(JSON.stringify({ words, built, cwd: process.cwd() }));
  });
})(require('node:http').Server.prototype.on);
"""
"""What a version is, at /words, beside the answers that the load expects."""


def _code(folder: Path, words: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "server.js").write_text(_ANSWER + PLAIN_SERVER.read_text().replace("'use strict';", ""))
    (folder / "words.txt").write_text(words)
    return folder


def _asked(address: str) -> dict[str, str]:
    with urllib.request.urlopen(f"http://{address}/words", timeout=10) as response:
        answer = json.loads(response.read())
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def address(fleet: Fleet) -> str:
    """The app as it lies on this machine, which every host of the fleet sees."""
    code = _code(fleet.folder / "code", "before")
    return fleet.start_app(code / "server.js", _SIZE, "--bake-time", "2s")


def _digests(fleet: Fleet) -> list[str | None]:
    return [revision["artifact_digest"] for revision in fleet.ask("history", "my-app")["revisions"]]


def test_code_is_deployed_refused_where_it_does_not_build_and_taken_back(fleet: Fleet, address: str) -> None:
    """Guards invariants 1, 2, 7 and 10."""
    code = fleet.folder / "code"
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            _code(code, "v1")
            fleet.do("deploy", "my-app", str(code))
            first = _asked(address)
            (code / "words.txt").write_text("v2")
            fleet.do("deploy", "my-app", str(code), "--build", "sh -c 'cp words.txt built.txt'")
            second = _asked(address)
            before = fleet.pids()
            (code / "words.txt").write_text("v3")
            refused = fleet.run("deploy", "my-app", str(code), "--build", "sh -c 'echo no compiler here; exit 3'")
            assert fleet.pids() == before
            fleet.do("rollback", "my-app")
            back = _asked(address)
        load.wait_for_more(100)
        summary = load.stop()

    assert_none_failed(summary)
    assert (first["words"], first["built"]) == ("v1", "")
    assert str(fleet.data_dir) in first["cwd"]
    assert (second["words"], second["built"]) == ("v2", "v2")
    assert refused.code == 1, refused.output + refused.errors
    assert "cannot make the code ready: build failed" in refused.errors
    assert "exit code 3" in refused.errors
    assert "runs on; mend that" in refused.errors
    assert len(refused.errors.splitlines()) < 24, "the reason does not fit on one screen"
    assert "no compiler here" in refused.errors
    assert (back["words"], back["built"]) == ("v1", "")
    assert first["cwd"].rpartition("/")[0] != second["cwd"].rpartition("/")[0]


def test_the_same_code_again_changes_nothing(fleet: Fleet, address: str) -> None:
    """Guards invariant 10."""
    code = _code(fleet.folder / "code", "same")
    fleet.do("deploy", "my-app", str(code), "--no-build")
    before = _digests(fleet), fleet.pids()
    again = fleet.do("deploy", "my-app", str(code))

    assert "is there already" in again
    assert (_digests(fleet), fleet.pids()) == before
    assert _asked(address)["words"] == "same"


def test_an_app_begins_with_its_code_and_says_the_truth_where_that_does_not_build(fleet: Fleet) -> None:
    """Guards invariant 10."""
    code = _code(fleet.folder / "newcomer", "first")
    address = free_address()
    command = ("deploy", "newcomer", str(code), "-i", "3", "--http", address, "--bake-time", "0s")
    failed = fleet.run(*command, "--build", "sh -c 'echo no compiler; exit 3'", "--", "node", "server.js")
    assert failed.code == 1, failed.output + failed.errors
    assert "cannot make the code ready" in failed.errors
    assert "no compiler" in failed.errors

    fleet.do(*command, "--no-build", "--", "node", "server.js")
    assert len(fleet.workers("newcomer")) == 3
    assert _asked(address)["words"] == "first"
    before = fleet.pids("newcomer")
    again = fleet.do(*command, "--no-build", "--", "node", "server.js")
    assert "nothing was changed" in again
    assert fleet.pids("newcomer") == before
    fleet.do("remove", "newcomer", "--yes")


def test_a_deploy_in_which_the_client_an_agent_or_the_controller_was_killed_ends_well_when_said_again(
    fleet: Fleet,
) -> None:
    """Guards invariants 3 and 6; `make faults-deploy` kills thirty times."""
    deaths = [Death("controller", 0.8), Death("agent", 1.4), Death("client", 1.0)]
    assert run(fleet, deaths, seed=1, app="mortal", weight=2_000_000) == []
    fleet.do("remove", "mortal", "--yes")
