"""Calls about hosts and balancers."""

from collections.abc import Mapping

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.client.base import Part
from fleetctl.client.errors import UsageError
from fleetctl.client.handles import AsyncDrain
from fleetctl.client.rollouts import new_request_id
from fleetctl.client.spec import texts_of
from fleetctl.client.values import Host, from_view


class Machines(Part):
    async def cordon(self, host: str) -> Host:
        """Place nothing new on a host; what runs there goes on."""
        return await self._cordon(host, cordoned=True)

    async def uncordon(self, host: str) -> Host:
        """Let a host take new workers again; calls a drain off."""
        return await self._cordon(host, cordoned=False)

    async def drain(self, host: str, *, allow_stopping_pinned: bool = False) -> AsyncDrain:
        """Move a host's workers to others, start-first; it takes nothing new until `uncordon`. Returns at once.

        Refused where workers of apps that are pinned to it would stop, unless `allow_stopping_pinned`.
        """
        request = control_pb2.DrainHostRequest(
            request_id=new_request_id(), host=host, allow_stopping_pinned=allow_stopping_pinned
        )
        answer = await self._connection.call(lambda stub: stub.DrainHost, request, mutation=True)
        return AsyncDrain(self._connection, answer.host)

    async def label(self, host: str, labels: Mapping[str, str | None]) -> Host:
        """Set labels of a host; None takes one away."""
        if not labels:
            raise UsageError("say what to label: a mapping of keys to values, None to take one away")
        request = control_pb2.LabelHostRequest(
            request_id=new_request_id(),
            host=host,
            set=texts_of("label", {key: value for key, value in labels.items() if value is not None}),
            unset=[key for key, value in labels.items() if value is None],
        )
        answer = await self._connection.call(lambda stub: stub.LabelHost, request, mutation=True)
        return from_view(views.host_view(answer.host), Host)

    async def remove_host(self, host: str) -> None:
        """Forget a host that is gone. Refused while its agent is connected, or where an app is pinned to it."""
        request = control_pb2.RemoveHostRequest(request_id=new_request_id(), host=host)
        await self._connection.call(lambda stub: stub.RemoveHost, request, mutation=True)

    async def remove_balancer(self, balancer: str) -> None:
        """Forget a balancer that is gone for good: rollouts wait for it no more. Refused while it is connected."""
        request = control_pb2.RemoveBalancerRequest(request_id=new_request_id(), balancer=balancer)
        await self._connection.call(lambda stub: stub.RemoveBalancer, request, mutation=True)

    async def _cordon(self, host: str, *, cordoned: bool) -> Host:
        request = control_pb2.CordonHostRequest(request_id=new_request_id(), host=host, cordoned=cordoned)
        answer = await self._connection.call(lambda stub: stub.CordonHost, request, mutation=True)
        return from_view(views.host_view(answer.host), Host)
