"""The fleet's control API for programs: `fleetctl.Client` and `fleetctl.AsyncClient`. Nothing in here knows a terminal."""
