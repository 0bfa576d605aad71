"""`python -m fleetctl.up`, the same as `fleetctl up`."""

import sys

from fleetctl.main import run

sys.exit(run(["up", *sys.argv[1:]]))
