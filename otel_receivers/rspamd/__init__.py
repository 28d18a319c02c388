"""Rspamd: what its controller says of itself, asked."""
