"""What people look at: the live page, Grafana dashboards."""
