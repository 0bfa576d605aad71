"""`fleet-agent install` and `uninstall`: a host's supervisor and agent as services."""
