"""`controller ls` asks each controller itself; `controller remove` forgets one."""

import json
from collections.abc import Callable

import grpc

from fleet.v1 import control_pb2
from fleetctl.errors import ExitCode
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl, FakeController
from tests.ports import free_address


def answer(address: str, *registered: tuple[str, str], **fields: object) -> control_pb2.ListControllersResponse:
    answering = control_pb2.Controller(address=address, version="1.2", **fields)  # type: ignore[arg-type]
    known = [control_pb2.RegisteredController(name=name, address=where) for name, where in registered]
    return control_pb2.ListControllersResponse(answering=answering, registered=known)


def test_every_controller_that_is_configured_or_registered_is_shown(
    start_controller: Callable[..., FakeController], point_at: Callable[..., None], invoke: Fleetctl
) -> None:
    controls = [FakeControl(), FakeControl()]
    leader, follower = (start_controller(control).address for control in controls)
    dead = free_address()
    known = ("c1", leader), ("c2", follower), ("c3", dead)
    controls[0].answers["ListControllers"] = answer(leader, *known, name="c1", leads=True, leading_seconds=65.0)
    controls[1].answers["ListControllers"] = answer(follower, name="c2", etcd_error="no quorum", leader=leader)
    # The follower is in no list of ours: the leader tells of it.
    point_at(leader)

    document = json.loads(invoke("controller", "ls", "-o", "json").out)
    assert [(each["name"], each["leads"], each["reachable"], each["etcd_ok"]) for each in document] == [
        ("c1", True, True, True),
        ("c2", False, True, False),
        ("c3", False, False, False),
    ]
    assert document[0]["leading_seconds"] == 65.0
    assert document[2] == {
        "name": "c3",
        "address": dead,
        "leads": False,
        "leading_seconds": 0.0,
        "version": "",
        "reachable": False,
        "etcd_ok": False,
        "error": "connection refused",
    }
    result = invoke("controller", "ls")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[1] == f"c1 leads for 1m05s {leader} ok 1.2"
    assert lines[2] == f"c2 follows {follower} no answer 1.2"
    assert lines[3] == f"c3 unreachable {dead} - -"
    assert "c2: no quorum" in result.err
    assert "no controller leads" not in result.err
    assert invoke("controller", "ls", "-q").out == "c1\nc2\nc3\n"


def test_controllers_are_listed_while_none_leads(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListControllers"] = answer("10.0.0.1:7400", name="c1", etcd_error="etcd has no quorum")
    result = fleetctl("controller", "ls")
    assert result.code == 0
    assert "no controller leads" in result.err


def test_without_any_answer_it_says_whom_it_asked(point_at: Callable[..., None], invoke: Fleetctl) -> None:
    dead = free_address()
    point_at(dead)
    result = invoke("controller", "ls")
    assert result.code == ExitCode.UNREACHABLE
    assert result.err == f"fleetctl: no controller can be reached: {dead} (connection refused)\n"


def test_a_controller_that_may_not_be_asked_is_no_unreachable_one(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.fail("ListControllers", grpc.StatusCode.PERMISSION_DENIED, "a certificate of role agent may not")
    assert fleetctl("controller", "ls").code == ExitCode.REFUSED


def test_a_controller_is_forgotten_once_that_is_confirmed(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl("controller", "remove", "c3").code != 0
    assert not control.of(control_pb2.RemoveControllerRequest)
    result = fleetctl("controller", "remove", "c3", "-y")
    assert (result.code, result.out) == (0, "c3 removed\n")
    (request,) = control.of(control_pb2.RemoveControllerRequest)
    assert request.controller == "c3"
    assert request.request_id
