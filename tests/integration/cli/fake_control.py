"""A ControlService that answers as told: behind real gRPC and mutual TLS, without a fleet."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from fleet.v1 import control_pb2, types_pb2
from fleet.v1.control_pb2_grpc import ControlServiceServicer, add_ControlServiceServicer_to_server
from fleet_core.grpc_tls import server_credentials, server_options
from fleet_core.tls import TlsFiles
from tests.ports import free_address

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


class FakeControl(ControlServiceServicer):
    """`answers[method]` is a response, a list of responses (a stream), or a function of (request, context).

    Every request is kept in `requests`, in order.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[Any] = []
        self.artifacts: dict[str, bytes] = {}
        """Digest → what arrived of it."""
        self.uploads_break_after = 0
        """Not 0: the next upload breaks once so many bytes of it are here."""
        self.released = threading.Event()
        """Ends streams that `hold` keeps open."""

    def of(self, kind: type) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    def fail(self, method: str, code: grpc.StatusCode, details: str, leader: str | None = None) -> None:
        """Answer `method` with an error; `leader`: the trailing metadata of one that does not lead."""

        def behave(_request: Any, context: grpc.ServicerContext) -> None:
            if leader is not None:
                context.set_trailing_metadata((("fleet-leader", leader),))
            context.abort(code, details)

        self.answers[method] = behave

    def hold(self, *responses: Any) -> Behaviour:
        """A stream that sends `responses` and stays open."""

        def behave(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from responses
            deadline = time.monotonic() + 30
            while context.is_active() and time.monotonic() < deadline:
                if self.released.wait(0.02):
                    return

        return behave

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext, default: Any) -> Any:
        self.requests.append(request)
        answer = self.answers.get(method, default)
        return answer(request, context) if callable(answer) else answer

    def ListControllers(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListControllers", request, context, control_pb2.ListControllersResponse())

    def RemoveController(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RemoveController", request, context, control_pb2.RemoveControllerResponse())

    def Backup(self, request: Any, context: Any) -> Any:  # noqa: N802
        header = control_pb2.BackupHeader(fleet_id="f", era=3, etcd_revision=8, records=1)
        records = control_pb2.BackupRecords(records=[control_pb2.BackupRecord(key="/fleet/v1/apps/a", value=b"{}")])
        parts = [control_pb2.BackupResponse(header=header), control_pb2.BackupResponse(records=records)]
        return iter(self._answer("Backup", request, context, parts))

    def Restore(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        context.send_initial_metadata((("fleet-accepted", "1"),))
        messages = list(request_iterator)
        for message in messages[1:]:
            self.requests.append(message)
        done = control_pb2.RestoreResponse(era=4, records=1, paused_apps=["a"])
        return self._answer("Restore", messages[0], context, done)

    def GetInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetInfo", request, context, control_pb2.GetInfoResponse(controller="c1", version="1.2"))

    def ListApps(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListApps", request, context, control_pb2.ListAppsResponse())

    def ListWorkers(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListWorkers", request, context, control_pb2.ListWorkersResponse())

    def ListHosts(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListHosts", request, context, control_pb2.ListHostsResponse())

    def ListBalancers(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListBalancers", request, context, control_pb2.ListBalancersResponse())

    def ListUpstreams(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListUpstreams", request, context, control_pb2.ListUpstreamsResponse())

    def StartApp(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("StartApp", request, context, began("start", request.spec.name))

    def SetSize(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("SetSize", request, context, set_size(request))

    def RestartApp(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RestartApp", request, context, began("restart", request.app))

    def StopApp(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("StopApp", request, context, began("stop", request.app))

    def RemoveApp(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RemoveApp", request, context, began("remove", request.app))

    def UpdateApp(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("UpdateApp", request, context, began("update", request.app, id=request.request_id))

    def RollbackApp(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RollbackApp", request, context, began("rollback", request.app))

    def ControlRollout(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ControlRollout", request, context, began("update", request.app))

    def GetArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        here = self.artifacts.get(request.digest, b"")
        complete = hashlib.sha256(here).hexdigest() == request.digest
        return self._answer("GetArtifact", request, context, _had(here, complete=complete))

    def UploadArtifact(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        first = next(request_iterator)
        end, self.uploads_break_after = self.uploads_break_after, 0
        here = self.artifacts.get(first.digest, b"")[: first.offset]
        answer = self._answer("UploadArtifact", first, context, None)
        context.send_initial_metadata((("fleet-accepted", "1"),))
        for message in request_iterator:
            here += message.data
            self.artifacts[first.digest] = here
            if end and len(here) >= end:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the controller ends")
        return answer or _had(here, complete=True)

    def GetHistory(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetHistory", request, context, control_pb2.GetHistoryResponse())

    def CordonHost(self, request: Any, context: Any) -> Any:  # noqa: N802
        scheduling = control_pb2.HOST_SCHEDULING_CORDONED if request.cordoned else control_pb2.HOST_SCHEDULING_OPEN
        answer = control_pb2.HostResponse(host=host(request.host, scheduling=scheduling))
        return self._answer("CordonHost", request, context, answer)

    def DrainHost(self, request: Any, context: Any) -> Any:  # noqa: N802
        draining = host(request.host, scheduling=control_pb2.HOST_SCHEDULING_DRAINING)
        return self._answer("DrainHost", request, context, control_pb2.HostResponse(host=draining))

    def WatchDrain(self, request: Any, context: Any) -> Any:  # noqa: N802
        drained = control_pb2.WatchDrainResponse(host=request.host, drained=True)
        return iter(self._answer("WatchDrain", request, context, [drained]))

    def LabelHost(self, request: Any, context: Any) -> Any:  # noqa: N802
        labelled = host(request.host, labels=dict(request.set))
        return self._answer("LabelHost", request, context, control_pb2.HostResponse(host=labelled))

    def RemoveHost(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RemoveHost", request, context, control_pb2.RemoveHostResponse())

    def RemoveBalancer(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RemoveBalancer", request, context, control_pb2.RemoveBalancerResponse())

    def GetRollout(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetRollout", request, context, began("restart", request.app))

    def WatchRollout(self, request: Any, context: Any) -> Any:  # noqa: N802
        return iter(self._answer("WatchRollout", request, context, [ended("done")]))

    def StreamLogs(self, request: Any, context: Any) -> Any:  # noqa: N802
        return iter(self._answer("StreamLogs", request, context, []))


def _had(here: bytes, *, complete: bool) -> control_pb2.GetArtifactResponse:
    return control_pb2.GetArtifactResponse(received_bytes=len(here), complete=complete)


class FakeController:
    """A FakeControl on a port of its own."""

    def __init__(self, files: TlsFiles, control: FakeControl, port: int | None = None) -> None:
        self.control = control
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=server_options())
        add_ControlServiceServicer_to_server(control, self._server)
        self.address = free_address() if port is None else f"127.0.0.1:{port}"
        self._server.add_secure_port(self.address, server_credentials(files))
        self._server.start()

    def close(self) -> None:
        self.control.released.set()
        self._server.stop(0).wait(10)


def rollout(kind: str, app: str = "my-app", state: str = "running", **fields: Any) -> control_pb2.Rollout:
    return control_pb2.Rollout(
        app=app,
        kind=control_pb2.RolloutKind.Value(f"ROLLOUT_KIND_{kind.upper()}"),
        state=control_pb2.RolloutState.Value(f"ROLLOUT_STATE_{state.upper()}"),
        **{"id": "r-1", "steps": 4, **fields},
    )


def began(kind: str, app: str = "my-app", **fields: Any) -> control_pb2.RolloutResponse:
    return control_pb2.RolloutResponse(rollout=rollout(kind, app, **fields))


def ended(state: str, kind: str = "restart", **fields: Any) -> control_pb2.RolloutResponse:
    shown = {"steps_done": 4, "replaced": 4, "seconds": 2.5, **fields}
    return control_pb2.RolloutResponse(rollout=rollout(kind, state=state, **shown))


def set_size(request: control_pb2.SetSizeRequest, shrinking: tuple[str, ...] = ()) -> control_pb2.SetSizeResponse:
    response = control_pb2.SetSizeResponse(
        plan=[
            control_pb2.HostSize(host="host1", before=2, after=4),
            control_pb2.HostSize(host="host2", before=2, after=1 if shrinking else 2),
        ],
        size_mode=control_pb2.SIZE_MODE_FLOATING,
        shrinking_others=shrinking,
    )
    if not request.dry_run:
        response.rollout.CopyFrom(rollout("set_size"))
    return response


def app(name: str = "my-app", **fields: Any) -> control_pb2.App:
    given: dict[str, Any] = {
        "state": control_pb2.APP_STATE_RUNNING,
        "revision": 1,
        "generation": 2,
        "size_mode": control_pb2.SIZE_MODE_FLOATING,
        "size": 3,
        "ready": 3,
        "placement": {"host1": 2, "host2": 1, "host3": 0},
        "spec": types_pb2.AppSpec(
            name=name,
            argv=["/usr/bin/node", "/srv/server.js"],
            cwd="/srv",
            route=types_pb2.RoutePolicy(http=":8080"),
        ),
    }
    return control_pb2.App(name=name, **{**given, **fields})


def worker(host: str = "host1", slot: int = 1, name: str = "my-app", **fields: Any) -> types_pb2.WorkerStatus:
    given: dict[str, Any] = {
        "revision": 1,
        "state": types_pb2.WORKER_STATE_READY,
        "phase": types_pb2.PHASE_RUN,
        "pid": 4200 + slot,
        "address": "127.0.0.1",
        "port": 20000 + slot,
        "uptime_seconds": 192.34,
        "rss_bytes": 54 * 1024 * 1024,
        "cpu_percent": 1.26,
    }
    return types_pb2.WorkerStatus(
        id=types_pb2.WorkerId(app=name, host=host, slot=slot, generation=2), **{**given, **fields}
    )


def host(name: str = "host1", **fields: Any) -> control_pb2.Host:
    given: dict[str, Any] = {
        "state": control_pb2.HOST_STATE_ONLINE,
        "cpus": 2,
        "workers": 2,
        "labels": {"zone": "a"},
        "address": "10.0.0.1",
        "agent_version": "0.1.0",
        "uid": "u1",
        "scheduling": control_pb2.HOST_SCHEDULING_OPEN,
    }
    return control_pb2.Host(name=name, **{**given, **fields})


def balancer(name: str = "lb1", **fields: Any) -> control_pb2.Balancer:
    given: dict[str, Any] = {
        "connected": True,
        "driver": "haproxy",
        "driver_version": "2.8.25",
        "version": "0.1.0",
        "pools_current": 1,
        "pools": 1,
    }
    return control_pb2.Balancer(name=name, **{**given, **fields})
