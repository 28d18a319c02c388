"""The agent: asks the host and the mail servers on it, keeps what it learns in a spool, and sends it as OTLP."""
