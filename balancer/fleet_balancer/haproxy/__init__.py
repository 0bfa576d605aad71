"""The HAProxy driver."""
