"""`fleet-balancer install` and `uninstall`: this host's balancer, and the HAProxy it drives, as services."""
