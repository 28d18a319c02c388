-- With TimescaleDB the table of WildDuck becomes a hypertable, a chunk a day.

SELECT create_hypertable('metrics_wildduck', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
