"""apply, diff, export and start FILE: what is asked of the controller, and that what is told is what became of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from fleet.v1 import control_pb2
from fleet_core.spec import AppSpec
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl

_MUTATIONS = (
    control_pb2.StartAppRequest,
    control_pb2.UpdateAppRequest,
    control_pb2.SetSizeRequest,
    control_pb2.RemoveAppRequest,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def spec(name: str, **fields: Any) -> AppSpec:
    return AppSpec.model_validate(
        {"name": name, "argv": ("sleep", "9"), "cwd": "/srv", "listen_mode": "none", **fields}
    )


def running(name: str, size: int = 2, **fields: Any) -> control_pb2.App:
    given = {"size": size, "ready": size, "placement": {"host1": size}, "spec": spec(name).to_proto(), **fields}
    return fake.app(name, **given)


def entry(size: int | None = 2, **fields: Any) -> dict[str, Any]:
    sized = {} if size is None else {"size": size}
    return {"command": "sleep 9", "cwd": "/srv", "listen": "none", **sized, **fields}


def write(folder: Path, **apps: Any) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(json.dumps({"apps": apps}))
    return path


def follow(control: FakeControl, **failures: str) -> None:
    """Each rollout ends at once: as failed, with this message, for the apps named here."""
    control.answers["WatchRollout"] = lambda request, _: iter([_ending(request.rollout, failures)])
    for method, kind in (("StartApp", "start"), ("UpdateApp", "update"), ("RemoveApp", "remove")):
        control.answers[method] = _beginning(kind)
    control.answers["SetSize"] = lambda request, _: control_pb2.SetSizeResponse(
        rollout=_named(fake.rollout("set_size", request.app))
    )


def _beginning(kind: str) -> Any:
    def begin(request: Any, _: Any) -> Any:
        name = request.spec.name if kind == "start" else request.app
        return control_pb2.RolloutResponse(rollout=_named(fake.rollout(kind, name)))

    return begin


def _named(rollout: control_pb2.Rollout) -> control_pb2.Rollout:
    rollout.id = f"{rollout.app}:{control_pb2.RolloutKind.Name(rollout.kind)}"
    return rollout


def _ending(rollout: str, failures: dict[str, str]) -> control_pb2.RolloutResponse:
    name, _, kind = rollout.partition(":")
    word = kind.removeprefix("ROLLOUT_KIND_").lower()
    state = "failed" if name in failures else "done"
    response = fake.ended(state, word, message=failures.get(name, ""))
    response.rollout.app = name
    return response


def asked(control: FakeControl) -> list[str]:
    lines = []
    for request in control.requests:
        if isinstance(request, _MUTATIONS):
            name = request.spec.name if isinstance(request, control_pb2.StartAppRequest) else request.app
            lines.append(f"{type(request).__name__.removesuffix('Request')} {name}")
    return lines


def test_apply_makes_each_app_what_the_file_says_in_its_order(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    """Guards invariant 10."""
    stopped = running("idle", state=control_pb2.APP_STATE_STOPPED, ready=0)
    control.answers["ListApps"] = control_pb2.ListAppsResponse(
        apps=[running("same"), running("other"), running("grown"), running("changed"), stopped]
    )
    follow(control)
    apps = {"new": entry(3), "changed": entry(env={"A": "b"}), "same": entry(), "grown": entry(5), "idle": entry()}
    result = fleetctl("apply", "-f", write(folder, **apps))
    assert result.code == 0
    assert asked(control) == ["StartApp new", "UpdateApp changed", "SetSize grown", "StartApp idle"]
    start, again = control.of(control_pb2.StartAppRequest)
    assert (start.size, start.spec) == (3, spec("new").to_proto())
    assert list(again.spec.argv) == []
    (update,) = control.of(control_pb2.UpdateAppRequest)
    assert (update.expected_revision, update.spec) == (1, spec("changed", env={"A": "b"}).to_proto())
    assert "same unchanged" in result.out
    assert "new started" in result.out
    assert result.out.splitlines()[-2:] == [
        "not in the file, left alone: other",
        "1 created, 2 changed, 1 started, 1 unchanged",
    ]


def test_applying_what_runs_changes_nothing(fleetctl: Fleetctl, control: FakeControl, folder: Path) -> None:
    apps = [running("a"), running("b", size_mode=control_pb2.SIZE_MODE_PINNED, placement={"host1": 2, "host2": 0})]
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=apps)
    assert fleetctl("export", "-f", folder / "fleet.yaml").code == 0
    assert fleetctl("diff", "-f", folder / "fleet.yaml").out == "2 apps, nothing differs\n"
    result = fleetctl("apply", "-f", folder / "fleet.yaml", "-o", "json")
    assert result.code == 0
    assert asked(control) == []
    assert [app["result"] for app in json.loads(result.out)["apps"]] == ["unchanged", "unchanged"]


def test_an_app_that_fails_does_not_keep_the_next_from_its_turn_and_is_told(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    """Guards invariant 10."""
    follow(control, bad="worker bad/host1/1 failed: exit code 3")
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[])
    apps = {"bad": entry(), "cores": entry("cpu"), "good": entry()}
    result = fleetctl("apply", "-f", write(folder, **apps), "-o", "json")
    assert result.code == 1
    assert asked(control) == ["StartApp bad", "StartApp good"]
    told = {app["app"]: (app["result"], app["message"]) for app in json.loads(result.out)["apps"]}
    assert told["good"] == ("created", "")
    assert told["bad"][0] == told["cores"][0] == "failed"
    assert "exit code 3" in told["bad"][1]
    assert "no cores to count" in told["cores"][1]
    assert result.err.splitlines()[0].endswith("fleet.yaml says: bad, cores")


def test_the_only_apps_failure_is_told_as_by_itself(fleetctl: Fleetctl, control: FakeControl, folder: Path) -> None:
    control.fail("StartApp", grpc.StatusCode.FAILED_PRECONDITION, "address :80 is taken by app other")
    result = fleetctl("apply", "-f", write(folder, a=entry()))
    assert result.code == 5
    assert "fleetctl: address :80 is taken by app other" in result.err


def test_a_timeout_ends_the_run_and_names_what_was_not_begun(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    follow(control)
    control.answers["WatchRollout"] = control.hold()
    result = fleetctl("apply", "-f", write(folder, a=entry(), b=entry()), "--timeout", "0.3s", "-o", "json")
    assert result.code == 6
    assert asked(control) == ["StartApp a"]
    assert [app["result"] for app in json.loads(result.out)["apps"]] == ["failed", "not begun"]


def test_steps_of_one_app_are_waited_for_one_after_the_other(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    follow(control)
    pinned = entry(None, hosts={"host1": 3, "host2": 1, "host3": 1})
    assert fleetctl("apply", "-f", write(folder, a=pinned)).code == 0
    (start,) = control.of(control_pb2.StartAppRequest)
    assert (start.size, list(start.hosts)) == (2, ["host2", "host3"])
    (size,) = control.of(control_pb2.SetSizeRequest)
    assert (size.host, size.change.absolute) == ("host1", 3)
    assert len(control.of(control_pb2.GetRolloutRequest)) == 2


def test_what_is_unchanged_but_not_well_is_said_to_be_so(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    """Guards invariant 10."""
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[running("a", ready=1)])
    assert "a unchanged, but 1 of 2 workers ready" in fleetctl("apply", "-f", write(folder, a=entry())).out


def test_a_rollout_under_way_to_what_the_file_says_is_waited_for(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    """Guards invariant 10."""
    follow(control, bad="it never got ready")
    control.answers["GetRollout"] = lambda request, _: control_pb2.RolloutResponse(
        rollout=_named(fake.rollout("update", request.app))
    )
    apps = [running(name, rollout=fake.rollout("update", name)) for name in ("bad", "good")]
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=apps)
    result = fleetctl("apply", "-f", write(folder, bad=entry(), good=entry()), "-o", "json")
    assert result.code == 1
    assert asked(control) == []
    assert [app["result"] for app in json.loads(result.out)["apps"]] == ["failed", "unchanged"]


def test_an_app_whose_last_rollout_failed_and_that_is_not_well_is_not_as_the_file_says(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    """Guards invariant 10."""
    failed = fake.rollout("start", "a", "failed")
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[running("a", ready=0, rollout=failed)])
    result = fleetctl("apply", "-f", write(folder, a=entry()))
    assert result.code == 1
    assert "its start failed before, 0 of 2 workers ready" in result.err
    assert asked(control) == []


def test_a_dry_run_and_a_diff_show_what_differs_and_change_nothing(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[running("a"), running("b"), running("c")])
    path = write(folder, a=entry(env={"SECRET": "hush"}), b=entry(3), d=entry())
    result = fleetctl("apply", "-f", path, "--dry-run", "--prune")
    assert result.code == 0
    assert "hush" not in result.out
    assert [line.split() for line in result.out.splitlines()[1:]] == [
        ["a", "change,", "replacing", "its", "workers", "env.SECRET:", "set"],
        ["b", "change", "size:", "2", "→", "3"],
        ["d", "create", "size:", "none", "→", "2"],
        ["c", "remove", "not", "in", "the", "file"],
    ]
    result = fleetctl("diff", "-f", path, "-o", "json")
    assert result.code == 1
    assert json.loads(result.out)[1] == {
        "app": "b",
        "change": "change",
        "differences": ["size: 2 → 3"],
        "replaces_workers": False,
    }
    assert fleetctl("diff", "-f", write(folder, a=entry())).code == 0
    assert asked(control) == []


def test_diff_exits_2_where_it_cannot_be_found_out(fleetctl: Fleetctl, control: FakeControl, folder: Path) -> None:
    assert fleetctl("diff", "-f", folder / "none.yaml").code == 2
    control.fail("ListApps", grpc.StatusCode.PERMISSION_DENIED, "not you")
    result = fleetctl("diff", "-f", write(folder, a=entry()))
    assert (result.code, result.err.splitlines()[0]) == (2, "fleetctl: not you")


def test_prune_asks_and_removes_what_the_file_does_not_name(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[running("a"), running("b")])
    follow(control)
    path = write(folder, a=entry())
    result = fleetctl("apply", "-f", path, "--prune")
    assert result.code == 5
    assert "Remove what is not in" in result.err
    assert asked(control) == []
    result = fleetctl("apply", "-f", path, "--prune", "--yes")
    assert result.code == 0
    assert asked(control) == ["RemoveApp b"]
    assert result.out.splitlines()[-1] == "1 unchanged, 1 removed"
    assert fleetctl("apply", "-f", path, "--prune", "--only", "a").code == 2


def test_a_mistake_is_told_with_its_place_and_nothing_is_asked(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    (folder / "fleet.yaml").write_text("apps:\n  a: {comand: x}\n  b: {command: x, sise: 3}\n")
    result = fleetctl("apply", "-f", "fleet.yaml")
    assert result.code == 2
    assert result.err.splitlines() == [
        "fleetctl: fleet.yaml:2:6: apps.a: what shall run? Write command, or script",
        "  fleet.yaml:2:7: apps.a.comand: there is no such field: did you mean command?",
        "  fleet.yaml:3:19: apps.b.sise: there is no such field: did you mean size?",
    ]
    assert control.requests == []


def test_of_many_mistakes_the_first_are_told(fleetctl: Fleetctl, folder: Path) -> None:
    (folder / "fleet.yaml").write_text("apps:\n" + "".join(f"  a{n}: {{command: x, sise: 3}}\n" for n in range(50)))
    lines = fleetctl("apply", "-f", "fleet.yaml").err.splitlines()
    assert (len(lines), lines[-1]) == (21, "  and 30 more")


def test_start_takes_an_ecosystem_file_with_pm2s_env(fleetctl: Fleetctl, control: FakeControl, folder: Path) -> None:
    follow(control)
    apps = [
        {"name": "web", "script": "a.js", "port": 80, "instances": 2, "watch": True, "env_production": {"A": "b"}},
        {"name": "job", "script": "b.js"},
    ]
    (folder / "ecosystem.json").write_text(json.dumps({"apps": apps}))
    result = fleetctl("start", "ecosystem.json", "--env", "production", "--only", "web")
    assert result.code == 0
    (start,) = control.of(control_pb2.StartAppRequest)
    assert (start.size, start.spec.name, dict(start.spec.env)) == (2, "web", {"A": "b"})
    assert start.spec.argv[1] == str(folder / "a.js")
    assert [line.partition(": there")[0] for line in result.err.splitlines()] == ["ecosystem.json: web: watch"]


def test_start_still_takes_everything_else(fleetctl: Fleetctl, control: FakeControl, folder: Path) -> None:
    (folder / "server.js").write_text("")
    assert fleetctl("start", "--ready-path", "/health.json", "./server.js", "-e", "A=b").code == 0
    (start,) = control.of(control_pb2.StartAppRequest)
    assert dict(start.spec.env) == {"A": "b"}
    assert fleetctl("start", "node", "--", "config.json").code == 0


def test_env_is_for_pm2s_files(fleetctl: Fleetctl, folder: Path) -> None:
    result = fleetctl("apply", "-f", write(folder, a=entry()), "--env", "production")
    assert (result.code, "--env is for PM2's files" in result.err) == (2, True)


def test_export_leaves_out_what_does_not_run_and_says_so(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    stopped = running("idle", state=control_pb2.APP_STATE_STOPPED)
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[running("a"), stopped])
    result = fleetctl("export")
    assert "idle is stopped: left out" in result.err
    assert "command:" in result.out
    assert "idle" not in result.out
    assert json.loads(fleetctl("export", "idle", "-o", "json").out)["apps"]["idle"]["size"] == 2
    assert fleetctl("export", "none").code == 4
    (folder / "fleet.yaml").write_text("mine")
    assert fleetctl("export", "-f", "fleet.yaml").code == 5
    assert (folder / "fleet.yaml").read_text() == "mine"
    assert fleetctl("export", "-f", "fleet.toml").code == 2


@pytest.fixture
def shop(folder: Path) -> Path:
    """A fleet file that lies in the code of its app."""
    (folder / "server.js").write_text("serve()")
    return write(folder, shop={"script": "server.js", "code": ".", "size": 2})


def begun(control: FakeControl) -> control_pb2.App:
    """The app as the controller has it after it was asked to start it."""
    (start,) = control.of(control_pb2.StartAppRequest)
    return running("shop", spec=start.spec, artifact_digest=start.artifact_digest)


def test_a_new_app_is_started_with_its_code_and_applied_again_it_is_the_same(
    fleetctl: Fleetctl, control: FakeControl, folder: Path, shop: Path
) -> None:
    """Guards invariant 10."""
    follow(control)
    would = fleetctl("apply", "-f", shop, "--dry-run")
    assert "code: none → sha256:" in would.out
    assert not control.of(control_pb2.UploadArtifactRequest)
    result = fleetctl("apply", "-f", shop)
    assert result.code == 0, result.err
    assert "(1 file, " in result.out
    (start,) = control.of(control_pb2.StartAppRequest)
    assert (start.spec.cwd, list(start.spec.argv)) == (".", ["node", "./server.js"])
    assert hashlib.sha256(control.artifacts[start.artifact_digest]).hexdigest() == start.artifact_digest

    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[begun(control)])
    assert fleetctl("diff", "-f", shop).code == 0
    # The file lies in the code, and is no part of it: another size is no other code.
    write(folder, shop={"script": "server.js", "code": ".", "size": 3})
    assert [line.split() for line in fleetctl("diff", "-f", shop).out.splitlines()[1:]] == [
        ["shop", "change", "size:", "2", "→", "3"]
    ]
    (folder / "server.js").write_text("serve(2)")
    write(folder, shop={"script": "server.js", "code": ".", "size": 2})
    changed = fleetctl("diff", "-f", shop)
    assert changed.code == 1
    assert f"code: sha256:{start.artifact_digest[:12]} → sha256:" in changed.out
    assert fleetctl("apply", "-f", shop).code == 0
    (update,) = control.of(control_pb2.UpdateAppRequest)
    assert update.artifact_digest in control.artifacts
    assert update.artifact_digest != start.artifact_digest


def test_what_is_exported_names_the_code_and_another_fleet_refuses_what_it_does_not_have(
    fleetctl: Fleetctl, control: FakeControl, folder: Path, shop: Path
) -> None:
    """Guards invariant 10."""
    follow(control)
    fleetctl("apply", "-f", shop)
    digest = begun(control).artifact_digest
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[begun(control)])
    out = folder / "out.yaml"
    assert fleetctl("export", "-f", out).code == 0
    assert digest in out.read_text()
    assert fleetctl("diff", "-f", out).code == 0

    control.answers["ListApps"] = control_pb2.ListAppsResponse()
    control.requests.clear()
    assert fleetctl("apply", "-f", out).code == 0, "the store has it"
    control.artifacts.clear()
    control.requests.clear()
    for words, code in (("apply", 5), ("diff", 2)):
        refused = fleetctl(words, "-f", out)
        assert refused.code == code
        assert f"shop: this fleet has no code {digest[:12]}: give code a path" in refused.err
    assert asked(control) == []


def test_code_that_cannot_be_packed_is_told_where_it_is_named_and_nothing_is_changed(
    fleetctl: Fleetctl, control: FakeControl, folder: Path
) -> None:
    """Guards invariant 10."""
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "b.js").write_text("")
    apps = {
        "one": entry(cwd=".", code="gone"),
        "two": {"script": "a.js", "code": {"path": "full"}},
        "three": entry(cwd=".", code="empty"),
        "fine": entry(),
    }
    path = write(folder, **apps)
    refused = fleetctl("apply", "-f", path)
    assert refused.code == 2
    told = [line.removeprefix("fleetctl: ").strip() for line in refused.err.splitlines()]
    assert [line.split(": ", 2)[1:] for line in told] == [
        ["apps.one.code", f"there is no {folder}/gone"],
        ["apps.two.code", f"there is no file ./a.js in {folder}/full"],
        ["apps.three.code", f"there are no files to deploy in {folder}/empty"],
    ]
    assert all(line.startswith(f"{path}:1:") for line in told)
    assert asked(control) == []
