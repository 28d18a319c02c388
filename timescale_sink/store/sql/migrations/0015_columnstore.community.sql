-- On TimescaleDB Community: the points and logs without a table of their own in columns once they are old.

ALTER TABLE otel_metric_point SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'series_id', timescaledb.orderby = 'time'
);
ALTER TABLE otel_log SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id', timescaledb.orderby = 'time, event_id'
);
