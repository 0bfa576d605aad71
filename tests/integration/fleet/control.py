"""The control API of a fleet under test, called directly: for what has to be asked for in messages, not in words."""

import asyncio
import tomllib
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fleet.v1 import control_pb2
from fleet.v1.control_pb2_grpc import ControlServiceStub
from fleet_core.grpc_tls import controller_channel
from fleet_core.tls import TlsFiles
from tests.integration.fleet.harness import Fleet, wait_for

if TYPE_CHECKING:
    from fleet.v1.control_pb2_grpc import ControlServiceAsyncStub

_CALL_SECONDS = 10.0
_DRAIN_SECONDS = 90.0
_T = TypeVar("_T")


class Control:
    """Each call opens a channel of its own and closes it. Errors are grpc.aio.AioRpcError."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def cordon(self, host: str, *, cordoned: bool = True) -> None:
        request = control_pb2.CordonHostRequest(request_id=str(uuid.uuid4()), host=host, cordoned=cordoned)
        self._call(lambda stub: stub.CordonHost(request, timeout=_CALL_SECONDS))

    def uncordon(self, host: str) -> None:
        self.cordon(host, cordoned=False)

    def drain(self, host: str, *, allow_stopping_pinned: bool = False) -> None:
        """Ask for a drain; returns at once."""
        request = control_pb2.DrainHostRequest(
            request_id=str(uuid.uuid4()), host=host, allow_stopping_pinned=allow_stopping_pinned
        )
        self._call(lambda stub: stub.DrainHost(request, timeout=_CALL_SECONDS))

    def watch_drain(self, host: str) -> list[control_pb2.WatchDrainResponse]:
        """All it sends, to its end."""

        async def watch(stub: "ControlServiceAsyncStub") -> list[control_pb2.WatchDrainResponse]:
            stream = stub.WatchDrain(control_pb2.WatchDrainRequest(host=host), timeout=_DRAIN_SECONDS)
            return [message async for message in stream]

        return self._call(watch)

    def label(self, host: str, **labels: str) -> None:
        request = control_pb2.LabelHostRequest(request_id=str(uuid.uuid4()), host=host, set=labels)
        self._call(lambda stub: stub.LabelHost(request, timeout=_CALL_SECONDS))

    def unlabel(self, host: str, *keys: str) -> None:
        request = control_pb2.LabelHostRequest(request_id=str(uuid.uuid4()), host=host, unset=keys)
        self._call(lambda stub: stub.LabelHost(request, timeout=_CALL_SECONDS))

    def app(self, name: str = "my-app") -> control_pb2.App:
        request = control_pb2.ListAppsRequest()
        answer = self._call(lambda stub: stub.ListApps(request, timeout=_CALL_SECONDS))
        (app,) = [app for app in answer.apps if app.name == name]
        return app

    def place(self, *, lost_after_seconds: float = 150.0, name: str = "my-app", **labels: str) -> None:
        """Give the app this placement policy, and wait for the rollout, which replaces no worker."""
        request = control_pb2.UpdateAppRequest(request_id=str(uuid.uuid4()), app=name, spec=self.app(name).spec)
        request.spec.placement.lost_after_seconds = lost_after_seconds
        request.spec.placement.labels.clear()
        request.spec.placement.labels.update(labels)
        self._call(lambda stub: stub.UpdateApp(request, timeout=_CALL_SECONDS))
        wait_for(lambda: self.settled(name), "the placement policy rolled out")

    def settled(self, name: str = "my-app") -> bool:
        return self.app(name).rollout.state == control_pb2.ROLLOUT_STATE_DONE

    def _call(self, call: "Callable[[ControlServiceAsyncStub], Awaitable[_T]]") -> _T:
        configuration = tomllib.loads(Path(self._fleet.environment["FLEET_CONFIG"]).read_text())
        context = configuration["contexts"][configuration["current"]]
        files = TlsFiles(*(Path(context[name]) for name in ("authority", "certificate", "key")))

        async def run() -> _T:
            channel = controller_channel(context["controllers"][0], files)
            try:
                stub: ControlServiceAsyncStub = ControlServiceStub(channel)
                return await call(stub)
            finally:
                await channel.close()

        return asyncio.run(run())
