"""`fleetctl up`: a whole fleet on this machine, with the certificates and the service-manager protocol of production."""
