"""fleet.v1.AgentService as the agent calls it; proto/fleet/v1/agent.proto is the contract."""

from collections.abc import Sequence

from fleet.v1 import agent_pb2
from fleet_core.controller_link.calls import Call, ControllerConnection, framed

_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name

SessionCall = Call[agent_pb2.AgentMessage, agent_pb2.ControllerMessage]
FetchCall = Call[agent_pb2.FetchArtifactRequest, agent_pb2.ArtifactChunk]


class AgentServiceClient:
    """At the other end of one connection. All raise CallError."""

    def __init__(self, connection: ControllerConnection) -> None:
        self._connection = connection

    def session(self, metadata: Sequence[tuple[str, str]] = ()) -> SessionCall:
        method = f"/{_SERVICE}/Session"
        return self._connection.call(method, agent_pb2.AgentMessage, agent_pb2.ControllerMessage, metadata)

    def fetch_artifact(self, request: agent_pb2.FetchArtifactRequest) -> FetchCall:
        call = self._connection.call(
            f"/{_SERVICE}/FetchArtifact", agent_pb2.FetchArtifactRequest, agent_pb2.ArtifactChunk
        )
        call.send(framed(request), end=True)
        return call
