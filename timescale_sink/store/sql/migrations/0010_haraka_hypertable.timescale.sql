-- With TimescaleDB the table of Haraka becomes a hypertable, a chunk a day.

SELECT create_hypertable('metrics_haraka', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
