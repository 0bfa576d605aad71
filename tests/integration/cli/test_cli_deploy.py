"""`deploy` and a controller that answers as told. Guards invariant 10."""

import hashlib
import os
from pathlib import Path

import grpc
import pytest

from fleet.v1 import control_pb2, types_pb2
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl


@pytest.fixture
def code(tmp_path: Path, control: FakeControl) -> Path:
    """What the app runs now, on this machine."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "server.js").write_text("serve()")
    (folder / "weight").write_bytes(os.urandom(1_000_000))
    app = fake.app()
    app.spec.cwd = str(folder)
    app.spec.argv[:] = ["/usr/bin/node", str(folder / "server.js")]
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[app])
    control.answers["WatchRollout"] = [fake.ended("done", "update", revision=2)]
    return folder


def test_code_is_sent_whole_and_rolled_out(fleetctl: Fleetctl, control: FakeControl, code: Path) -> None:
    result = fleetctl("deploy", "my-app", code, "--build", "make 'all of it'", "--build-timeout", "90s")

    assert result.code == 0, result.err
    assert "2 files" in result.out
    assert result.out.endswith("my-app updated to revision 2: 4 workers replaced in 2.5s\n")
    (request,) = control.of(control_pb2.UpdateAppRequest)
    assert hashlib.sha256(control.artifacts[request.artifact_digest]).hexdigest() == request.artifact_digest
    assert (request.spec.cwd, list(request.spec.argv)) == (".", ["/usr/bin/node", "./server.js"])
    assert (list(request.spec.build.command), request.spec.build.timeout_seconds) == (["make", "all of it"], 90)
    assert request.cause == "deploy code"
    assert request.expected_revision


def test_an_upload_that_breaks_goes_on_where_it_ended(fleetctl: Fleetctl, control: FakeControl, code: Path) -> None:
    control.uploads_break_after = 500_000
    result = fleetctl("deploy", "my-app", code)

    assert result.code == 0, result.err
    (request,) = control.of(control_pb2.UpdateAppRequest)
    assert hashlib.sha256(control.artifacts[request.artifact_digest]).hexdigest() == request.artifact_digest
    first, second = control.of(control_pb2.UploadArtifactRequest)
    assert first.offset == 0
    assert second.offset >= 500_000


def test_code_that_is_there_is_not_sent_again(fleetctl: Fleetctl, control: FakeControl, code: Path) -> None:
    fleetctl("deploy", "my-app", code)
    again = fleetctl("deploy", "my-app", code)

    assert "is there already" in again.out
    assert len(control.of(control_pb2.UploadArtifactRequest)) == 1


def test_what_the_store_refuses_changes_nothing(fleetctl: Fleetctl, control: FakeControl, code: Path) -> None:
    control.fail("UploadArtifact", grpc.StatusCode.RESOURCE_EXHAUSTED, "the artifact store is full")
    result = fleetctl("deploy", "my-app", code)

    assert (result.code, result.err.splitlines()[0]) == (5, "fleetctl: the artifact store is full")
    assert not control.of(control_pb2.UpdateAppRequest)


def test_an_app_begins_with_its_code(fleetctl: Fleetctl, control: FakeControl, code: Path) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "start")]
    options = ("-i", "4", "--http", ":8080", "-e", "COLOUR=red", "--host", "host1", "--no-build")
    result = fleetctl("deploy", "shop", code, *options, "--", "node", "server.js", "--fast")

    assert result.code == 0, result.err
    (request,) = control.of(control_pb2.StartAppRequest)
    assert hashlib.sha256(control.artifacts[request.artifact_digest]).hexdigest() == request.artifact_digest
    assert (request.spec.name, request.spec.cwd) == ("shop", ".")
    assert list(request.spec.argv) == ["node", "server.js", "--fast"]
    assert request.spec.runtime == types_pb2.RUNTIME_NODE
    assert (request.spec.route.http, dict(request.spec.env), request.spec.build.skip) == (
        ":8080",
        {"COLOUR": "red"},
        True,
    )
    assert (request.size, list(request.hosts), request.cause) == (4, ["host1"], "deploy code")
    assert not control.of(control_pb2.UpdateAppRequest)


def test_the_folder_is_this_one_where_only_a_command_is_given_and_a_script_gets_its_interpreter(
    fleetctl: Fleetctl, control: FakeControl, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(code)
    result = fleetctl("deploy", "shop", "--", "server.js")

    assert result.code == 0, result.err
    (request,) = control.of(control_pb2.StartAppRequest)
    assert list(request.spec.argv) == ["node", "./server.js"]


def test_options_given_for_an_app_that_exists_hold_from_now_on(
    fleetctl: Fleetctl, control: FakeControl, code: Path
) -> None:
    result = fleetctl("deploy", "my-app", code, "-i", "3", "-e", "A=1", "--grace", "20s", "--", "node", "server.js")

    assert result.code == 0, result.err
    (request,) = control.of(control_pb2.UpdateAppRequest)
    assert list(request.spec.argv) == ["node", "server.js"]
    assert (dict(request.spec.env), request.spec.stop.grace_seconds) == ({"A": "1"}, 20)
    assert request.spec.route.http == ":8080"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (
            ("other-app", "."),
            4,
            "a new one needs a command to run in the code: fleetctl deploy other-app -- node server.js",
        ),
        (("other-app", ".", "--"), 2, "nothing follows --"),
        (("other-app", ".", "--run", "x", "--", "y"), 2, "exclude each other"),
        (("other-app", ".", "--", "./nowhere.js"), 4, "there is no file ./nowhere.js in what is deployed"),
        (("other-app", ".", "--", "./weight"), 2, "not executable"),
        (("other-app", ".", "--cwd", "/", "--", "node", "server.js"), 2, "--cwd / is not in what is deployed"),
        (("Other_App", ".", "--", "node", "server.js"), 2, "app name 'Other_App' is not valid"),
        (("my-app", ".", "-i", "7"), 2, "my-app has 3 workers already: `fleetctl set-size my-app 7` changes that"),
        (("my-app", ".", "--host", "host9"), 2, "my-app runs on host1, host2"),
        (("my-app", "./nowhere"), 2, "nowhere"),
        (("my-app", ".", "--build", "x", "--no-build"), 2, "exclude each other"),
        (("my-app", ".", "--build", ""), 2, "--build is empty"),
        (("my-app", ".", "--run", "'"), 2, "--run"),
        (("my-app", "weight"), 2, "no tar archive"),
        (("my-app", "weight", "--ref", "v1"), 2, "--ref needs a folder"),
        (("my-app", ".", "--ref", "v1"), 4, "--ref v1"),
    ],
)
def test_what_cannot_be_deployed_is_refused_in_a_line(
    fleetctl: Fleetctl,
    control: FakeControl,
    code: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    exit_code: int,
    said: str,
) -> None:
    monkeypatch.chdir(code)
    result = fleetctl("deploy", *arguments)

    assert (result.code, result.out) == (exit_code, "")
    assert said in result.err
    assert len([line for line in result.err.splitlines() if not line.startswith(" ")]) == 1
    assert not control.of(control_pb2.UpdateAppRequest)
    assert not control.of(control_pb2.StartAppRequest)
    assert not control.artifacts
