"""WildDuck: users, quotas and mailboxes, asked of its API; its own Prometheus page, scraped where it is on."""
