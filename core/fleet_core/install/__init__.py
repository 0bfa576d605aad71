"""Installing a daemon on a host: what is to be done as values, and carrying it out."""
