SELECT create_hypertable('email_events', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('delivery_events', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
