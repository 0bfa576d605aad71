"""Commands that look: their tables, their documents, their names."""

import json
from typing import Any

import grpc
import pytest
import yaml

from fleet.v1 import control_pb2, types_pb2
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl


def answer_workers(control: FakeControl, *workers: types_pb2.WorkerStatus) -> None:
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(workers=workers)


def answer_apps(control: FakeControl, *apps: control_pb2.App) -> None:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=apps)


def test_ps_prints_the_fields_that_are_an_interface(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_workers(control, fake.worker("host2"), fake.worker("host1", 2), fake.worker("host1", 1))
    listed = json.loads(fleetctl("ps", "-o", "json").out)
    assert [worker["id"] for worker in listed] == ["my-app/host1/1", "my-app/host1/2", "my-app/host2/1"]
    expected = {
        "id": "my-app/host1/1",
        "app": "my-app",
        "host": "host1",
        "slot": 1,
        "pid": 4201,
        "port": 20001,
        "state": "ready",
        "ready": True,
        "revision": 1,
        "generation": 2,
        "restarts": 0,
        "uptime_seconds": 192.34,
        "rss_bytes": 56_623_104,
        "cpu_percent": 1.3,
    }
    assert expected.items() <= listed[0].items()


def test_ps_asks_for_one_app_only(fleetctl: Fleetctl, control: FakeControl) -> None:
    fleetctl("ps", "my-app")
    assert control.of(control_pb2.ListWorkersRequest)[0].app == "my-app"


def test_a_table_in_a_pipe_is_plain_and_never_cut(fleetctl: Fleetctl, control: FakeControl) -> None:
    long = "a" * 63
    answer_workers(control, fake.worker(long, name=long, restarts=3))
    out = fleetctl("ps").out
    assert "\x1b" not in out
    header, row = out.splitlines()
    assert header.split() == [
        "WORKER", "STATE", "PID", "PORT", "REV", "GEN", "RESTARTS", "UPTIME", "MEMORY", "CPU",
    ]  # fmt: skip
    assert row.split() == [
        f"{long}/{long}/1", "ready", "4201", "20001", "1", "2", "3", "3m12s", "54.0", "MiB", "1.3%",
    ]  # fmt: skip


def test_a_worker_without_a_process_shows_no_numbers(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_workers(control, fake.worker(pid=0, port=0, state=types_pb2.WORKER_STATE_BACKOFF))
    assert fleetctl("ps").out.splitlines()[1].split() == [
        "my-app/host1/1", "backoff", "-", "-", "1", "2", "0", "-", "-", "-",
    ]  # fmt: skip


def test_ls_prints_the_fields_that_are_an_interface(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app(rollout=fake.rollout("restart", steps_done=1)))
    (app,) = json.loads(fleetctl("ls", "-o", "json").out)
    assert {
        "name": "my-app",
        "revision": 1,
        "size": 3,
        "ready": 3,
        "hosts": ["host1", "host2"],
        "state": "running",
    }.items() <= app.items()
    assert app["rollout"]["id"] == "r-1"
    assert app["rollout"]["state"] == "running"


def test_ls_of_nothing_says_how_to_begin(fleetctl: Fleetctl) -> None:
    result = fleetctl("ls")
    assert result.code == 0
    assert "fleetctl start ./server.js --http :8080" in result.out
    assert json.loads(fleetctl("ls", "-o", "json").out) == []


def test_quiet_lists_are_names_only(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app("b"), fake.app("a"))
    answer_workers(control, fake.worker())
    assert fleetctl("ls", "-q").out == "a\nb\n"
    assert fleetctl("-q", "ps").out == "my-app/host1/1\n"


def test_yaml_is_the_same_document(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app())
    assert yaml.safe_load(fleetctl("-o", "yaml", "ls").out) == json.loads(fleetctl("-o", "json", "ls").out)


def test_host_ls_prints_the_fields_that_are_an_interface(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(
        hosts=[fake.host(), fake.host("host0", state=control_pb2.HOST_STATE_UNKNOWN)]
    )
    away, online = json.loads(fleetctl("host", "ls", "-o", "json").out)
    assert away["state"] == "unknown"
    assert {
        "name": "host1",
        "state": "online",
        "cpus": 2,
        "workers": 2,
        "labels": {"zone": "a"},
    }.items() <= online.items()
    assert "zone=a" in fleetctl("host", "ls").out


def test_balancer_ls_shows_who_is_behind_and_why(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListBalancers"] = control_pb2.ListBalancersResponse(
        balancers=[
            fake.balancer(error="port 8080 is in use", pools_current=0),
            fake.balancer("lb2", notices=["certificate a.pem expires on 2026-12-01"]),
        ]
    )
    result = fleetctl("balancer", "ls")
    assert "0/1" in result.out
    assert result.err == "lb1 refused: port 8080 is in use\nlb2: certificate a.pem expires on 2026-12-01\n"
    assert json.loads(fleetctl("balancer", "ls", "-o", "json").out)[0]["state"] == "connected"


def test_upstreams_show_each_endpoint_and_who_acknowledged(fleetctl: Fleetctl, control: FakeControl) -> None:
    endpoint = types_pb2.Endpoint(
        worker=types_pb2.WorkerId(app="my-app", host="host1", slot=1, generation=2),
        address="10.0.0.1",
        port=20001,
        state=types_pb2.ENDPOINT_STATE_DRAINING,
    )
    control.answers["ListUpstreams"] = control_pb2.ListUpstreamsResponse(
        upstreams=[
            control_pb2.Upstream(pool="my-app", version=7, endpoints=[endpoint], acknowledged={"lb1": 7, "lb2": 6})
        ]
    )
    out = fleetctl("balancer", "upstreams", "my-app").out
    assert "lb1 has it, lb2 has version 6" in out
    assert "10.0.0.1:20001" in out
    (upstream,) = json.loads(fleetctl("balancer", "upstreams", "-o", "json").out)
    assert upstream["endpoints"][0]["state"] == "draining"
    assert upstream["acknowledged"] == {"lb1": 7, "lb2": 6}
    assert fleetctl("balancer", "upstreams", "-q").out == "10.0.0.1:20001\n"


def test_info_says_when_etcd_does_not_answer(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["GetInfo"] = control_pb2.GetInfoResponse(
        controller="c1", epoch=types_pb2.Epoch(era=1, election_revision=9), etcd_error="connection refused"
    )
    assert "connection refused" in fleetctl("info").out
    assert json.loads(fleetctl("info", "-o", "json").out)["epoch"] == "1.9"


def test_status_of_an_app_names_reasons_and_the_next_step(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app(ready=2, notices=["host2 came back"]), fake.app("other"))
    answer_workers(
        control,
        fake.worker(),
        fake.worker(
            slot=2,
            state=types_pb2.WORKER_STATE_BACKOFF,
            pid=0,
            restarts=3,
            reason="killed by SIGSEGV",
            status_text="loading",
            last_lines=["first", "  \x1b[31mat main\x1b[0m"],
        ),
        fake.worker(slot=3, reason="exit code 1"),
    )
    control.answers["ListBalancers"] = control_pb2.ListBalancersResponse(balancers=[fake.balancer(connected=False)])
    out = fleetctl("status", "my-app").out
    assert "2 of 3 ready" in out
    assert "! host2 came back" in out
    assert (
        "not well\n"
        "  my-app/host1/2  backoff after 3 restarts\n"
        "    killed by SIGSEGV\n"
        "    its status: loading\n"
        "    it printed last:\n"
        "      | first\n"
        "      |   at main\n"
    ) in out
    assert "why these last ended\n  my-app/host1/3: exit code 1\n" in out
    assert "fleetctl logs --worker my-app/host1/2 --lines 50" in out
    assert "balancer lb1 is away" in out
    assert "other" not in out


def test_of_many_that_are_not_well_some_are_told_and_the_rest_counted(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app(ready=0))
    failed = [fake.worker(slot=n, state=types_pb2.WORKER_STATE_FAILED, pid=0, reason="no") for n in range(1, 41)]
    answer_workers(control, *failed)
    out = fleetctl("status", "my-app").out
    assert "and 35 more workers" in out
    assert len(out.splitlines()) < 65


def test_wide_shows_open_files_threads_and_status(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_workers(control, fake.worker(open_files=23, threads=11, status_text="serving"), fake.worker(slot=2, pid=0))
    heading, first, second = fleetctl("ps", "--wide").out.splitlines()
    assert heading.split()[-3:] == ["FDS", "THREADS", "STATUS"]
    assert first.split()[-3:] == ["23", "11", "serving"]
    assert second.split()[-2:] == ["-", "-"]
    document = json.loads(fleetctl("ps", "-o", "json").out)
    assert (document[0]["open_files"], document[0]["threads"], document[0]["status"]) == (23, 11, "serving")


def test_top_is_a_table_once_where_nobody_watches(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app())
    answer_workers(control, fake.worker(cpu_percent=1), fake.worker(slot=2, cpu_percent=50))
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host()])
    result = fleetctl("top")
    assert result.code == 0
    first, *lines = result.out.splitlines()
    assert first == "1 of 1 host  1 app  2 workers  CPU 51.0% of 2 cores  memory 108 MiB"
    assert [line.split()[0] for line in lines if line.startswith("my-app/")] == ["my-app/host1/2", "my-app/host1/1"]
    assert fleetctl("top", "-q", "--sort", "name").out == "my-app/host1/1\nmy-app/host1/2\n"


def test_top_as_json_is_an_object_a_line_until_the_timeout(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app())
    answer_workers(control, fake.worker(cpu_percent=1))
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host()])
    result = fleetctl("top", "-o", "json", "--interval", "100ms", "--timeout", "2s")
    views = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0
    assert len(views) > 1
    assert views[0]["hosts"][0]["cpu_percent"] == views[0]["workers"][0]["cpu_percent"] == 1.0
    assert len(fleetctl("top", "-o", "json", "--once").out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--interval", "1ms"), "--interval"), (("--interval", "0"), "--interval"), (("--sort", "luck"), "--sort")],
)
def test_top_refuses_what_makes_no_sense(fleetctl: Fleetctl, arguments: tuple[str, ...], complaint: str) -> None:
    result = fleetctl("top", *arguments)
    assert result.code == 2
    assert complaint in result.err.splitlines()[0]


def test_status_of_the_fleet_shows_what_a_rollout_waits_for(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app(rollout=fake.rollout("restart", steps_done=2, message="waits for balancer lb1")))
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host()])
    assert "restart 2/4" in fleetctl("status").out
    assert "waits for balancer lb1" in fleetctl("status", "my-app").out
    document = json.loads(fleetctl("status", "-o", "json").out)
    assert document["apps"][0]["rollout"]["message"] == "waits for balancer lb1"
    assert document["hosts"][0]["name"] == "host1"


def test_text_from_elsewhere_cannot_move_the_cursor(fleetctl: Fleetctl, control: FakeControl) -> None:
    answer_apps(control, fake.app(notices=["evil\x1b[2J\r\nnews [bold]x[/bold]"]))
    out = fleetctl("status", "my-app").out
    assert "\x1b" not in out
    assert "! evil news [bold]x[/bold]" in out


@pytest.mark.parametrize(
    "command", [("ps", "nope"), ("balancer", "upstreams", "nope"), ("logs", "nope"), ("status", "nope")]
)
def test_an_unknown_app_is_not_found(fleetctl: Fleetctl, control: FakeControl, command: tuple[str, ...]) -> None:
    for method in ("ListApps", "ListWorkers", "ListUpstreams"):
        control.fail(method, grpc.StatusCode.NOT_FOUND, "there is no app 'nope'")

    def refuse(_request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "there is no app 'nope'")

    control.answers["StreamLogs"] = refuse
    result = fleetctl(*command)
    assert result.code == 4
    assert result.err == "fleetctl: there is no app 'nope'\n  `fleetctl ls` shows the apps\n"
    assert result.out == ""


def test_status_finds_an_unknown_app_in_an_empty_answer_too(fleetctl: Fleetctl) -> None:
    assert fleetctl("status", "nope").code == 4


def test_rollout_status_is_the_newest_one(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["GetRollout"] = fake.began(
        "restart",
        steps_done=1,
        message="waits for balancer lb1",
        hosts=[control_pb2.HostProgress(host="host1", steps=4, steps_done=1, doing="draining 2")],
    )
    result = fleetctl("rollout", "status", "my-app")
    assert result.code == 0
    assert "waits for balancer lb1" in result.out
    assert "draining 2" in result.out
    document = json.loads(fleetctl("rollout", "status", "my-app", "-o", "json").out)
    assert (document["id"], document["state"], document["hosts"][0]["doing"]) == ("r-1", "running", "draining 2")
