"""`fleet-controller init`, `install` and `uninstall`: a fleet's authority, and a controller as a service."""
