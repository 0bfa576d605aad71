"""The wire to the controller: gRPC over HTTP/2 over TLS in the caller's own event loop, without gRPC's threads (ADR 17)."""
