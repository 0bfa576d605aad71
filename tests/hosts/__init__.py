"""Hosts that are hosts: each a container with its own systemd, address, users and way of failing. See docs/install.md."""
