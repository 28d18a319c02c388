-- With TimescaleDB the tables of points and records become hypertables, a chunk a day.

SELECT create_hypertable('metrics_system', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('metrics_zonemta', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('otel_metric_point', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
SELECT create_hypertable('otel_log', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
