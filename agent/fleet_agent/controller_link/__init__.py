"""The wire to the controller: gRPC over HTTP/2 over TLS in the agent's own event loop, without gRPC's threads (ADR 17)."""
