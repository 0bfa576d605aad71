"""What other supervisors run on a machine, read as the apps of a fleet file. Each module knows one of them."""
