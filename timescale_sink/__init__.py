"""The sink: OTLP in, typed tables out; its database, API and alerts."""
