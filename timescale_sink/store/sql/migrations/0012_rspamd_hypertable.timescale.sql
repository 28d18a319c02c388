-- With TimescaleDB the table of Rspamd becomes a hypertable, a chunk a day.

SELECT create_hypertable('metrics_rspamd', by_range('time', INTERVAL '1 day'), create_default_indexes => false, migrate_data => true);
