"""Zone-MTA: its own Prometheus page, scraped."""
