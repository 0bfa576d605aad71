"""One host's worth of process supervision, fleetctl beside its peers: `python -m tests.bench.host`, or `make bench-host`."""
