"""Builds Grafana's dashboards over Postel's tables (docs/grafana.md): `python -m tools.grafana` writes them."""
