"""What the balancer shows to clients that speak TLS: certificates that were given to it, and those it made itself."""
