"""From OTLP to committed rows: mapping, writer, service."""
