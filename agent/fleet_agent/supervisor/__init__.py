"""fleet-supervisor: the process half of a host. Standard library only, one thread, no network."""
