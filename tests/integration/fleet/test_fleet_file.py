"""A fleet file on a whole fleet: applied, applied again, changed, exported; and PM2's file as it is."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet.harness import PLAIN_SERVER, Fleet
from tests.ports import free_address

QUICK = {"bake": "0s", "min_ready": "0s"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "server.js").write_text(PLAIN_SERVER.read_text())
    return tmp_path


def write(path: Path, **apps: dict[str, Any]) -> str:
    path.write_text(json.dumps({"apps": apps}))
    return str(path)


def ticker(**fields: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", "exec sleep 1000"], "listen": "none", "rollout": QUICK, **fields}


def pids(fleet: Fleet, app: str) -> dict[str, int]:
    answer = fleet.run("ps", app, "-o", "json")
    return {worker["id"]: worker["pid"] for worker in json.loads(answer.output)}


def results(fleet: Fleet, *arguments: str) -> dict[str, str]:
    answer = fleet.run("apply", *arguments, "-o", "json")
    assert answer.code == 0, answer.errors
    return {app["app"]: app["result"] for app in json.loads(answer.output)["apps"]}


def test_applying_twice_changes_nothing_and_a_change_outside_the_workers_replaces_none(
    fleet: Fleet, folder: Path
) -> None:
    path = folder / "fleet.yaml"
    pinned = ticker(hosts={"host1": 2, "host2": 1}, counters={"N": 5})
    assert results(fleet, "-f", write(path, one=ticker(size=3), two=pinned)) == {"one": "created", "two": "created"}
    assert sorted(pids(fleet, "two")) == ["two/host1/1", "two/host1/2", "two/host2/1"]
    before = pids(fleet, "one") | pids(fleet, "two")
    assert results(fleet, "-f", str(path)) == {"one": "unchanged", "two": "unchanged"}
    assert fleet.run("diff", "-f", str(path)).code == 0
    rolled = ticker(size=3, rollout={**QUICK, "drain_timeout": "5s"}, placement={"lost_after": "5m"})
    assert fleet.run("diff", "-f", write(path, one=rolled, two=pinned)).code == 1
    assert results(fleet, "-f", str(path)) == {"one": "changed", "two": "unchanged"}
    assert pids(fleet, "one") | pids(fleet, "two") == before
    assert results(fleet, "-f", write(path, one={**rolled, "env": {"A": "b"}}), "--only", "one") == {"one": "changed"}
    assert set(pids(fleet, "one").values()).isdisjoint(before.values())
    assert pids(fleet, "two").items() <= before.items()


def test_what_is_exported_changes_nothing_and_prune_leaves_only_what_the_file_names(fleet: Fleet, folder: Path) -> None:
    fleet.run("start", "sh", "-n", "by-hand", "-i", "2", "--no-port", "-e", "A=no", "--", "-c", "exec sleep 1000")
    out = str(folder / "out.yaml")
    assert fleet.run("export", "by-hand", "-f", out).code == 0
    before = pids(fleet, "by-hand")
    assert fleet.run("diff", "-f", out).code == 0
    results(fleet, "-f", out, "--prune", "--yes")
    assert pids(fleet, "by-hand") == before
    assert [app["name"] for app in json.loads(fleet.run("ls", "-o", "json").output)] == ["by-hand"]


def test_an_app_of_a_file_begins_with_its_code_and_gets_other_code_only_when_it_is_other(
    fleet: Fleet, folder: Path
) -> None:
    """Guards invariant 10."""
    (folder / "words.txt").write_text("first")
    app = {"script": "server.js", "code": ".", "size": 2, "build": {"skip": True}, "rollout": QUICK}
    path = write(folder / "fleet.yaml", coded=app)
    assert results(fleet, "-f", path) == {"coded": "created"}
    before = pids(fleet, "coded")
    folders = {Path(f"/proc/{pid}/cwd").readlink() for pid in before.values()}
    assert {(code / "words.txt").read_text() for code in folders} == {"first"}
    assert all(code.is_relative_to(fleet.data_dir) and not (code / "fleet.yaml").exists() for code in folders)
    assert results(fleet, "-f", path) == {"coded": "unchanged"}
    exported = str(folder / "out.yaml")
    assert fleet.run("export", "coded", "-f", exported).code == 0
    assert fleet.run("diff", "-f", exported).code == 0
    assert pids(fleet, "coded") == before

    Path(exported).rename(fleet.folder / "out.yaml")
    (folder / "words.txt").write_text("second")
    assert results(fleet, "-f", path) == {"coded": "changed"}
    after = pids(fleet, "coded")
    assert {(Path(f"/proc/{pid}/cwd") / "words.txt").read_text() for pid in after.values()} == {"second"}
    assert results(fleet, "-f", str(fleet.folder / "out.yaml")) == {"coded": "changed"}, "back, by the digest"
    back = {(Path(f"/proc/{pid}/cwd") / "words.txt").read_text() for pid in pids(fleet, "coded").values()}
    assert back == {"first"}
    fleet.do("remove", "coded", "--yes")


def test_an_ecosystem_file_of_pm2_is_started_as_it_is(fleet: Fleet, folder: Path) -> None:
    port = free_address().rpartition(":")[2]
    app = f"{{name: 'web', script: './server.js', instances: 2, exec_mode: 'cluster', watch: true, port: {port}}}"
    path = folder / "ecosystem.config.js"
    path.write_text(f"module.exports = {{apps: [{app}]}}")
    answer = fleet.run("start", str(path))
    assert answer.code == 0, answer.errors
    assert [line.split(": ")[:3] for line in answer.errors.splitlines()] == [["ecosystem.config.js", "web", "watch"]]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        assert response.status == 200
    assert len(pids(fleet, "web")) == 2
    assert fleet.run("diff", "-f", str(path)).code == 0
