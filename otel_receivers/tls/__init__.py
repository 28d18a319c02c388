"""TLS: the certificates that this host's mail listeners show."""
