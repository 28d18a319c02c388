-- On TimescaleDB Community: delivery_events in columns once it is old, and its rollups.

ALTER TABLE delivery_events SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id', timescaledb.orderby = 'time, event_id'
);

CREATE MATERIALIZED VIEW delivery_events_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', time) AS bucket,
    node_id,
    instance,
    zone,
    to_domain AS domain,
    status,
    category,
    count(*) AS attempts,
    count(*) FILTER (WHERE attempt = 1) AS first_attempts,
    sum(duration) AS duration_sum,
    count(duration) AS duration_count,
    min(duration) AS duration_min,
    max(duration) AS duration_max
FROM delivery_events
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;
CREATE INDEX delivery_events_5m_1_key ON delivery_events_5m_1 (domain, bucket);

CREATE MATERIALIZED VIEW delivery_events_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    node_id,
    instance,
    zone,
    domain,
    status,
    category,
    sum(attempts)::bigint AS attempts,
    sum(first_attempts)::bigint AS first_attempts,
    sum(duration_sum) AS duration_sum,
    sum(duration_count)::bigint AS duration_count,
    min(duration_min) AS duration_min,
    max(duration_max) AS duration_max
FROM delivery_events_5m_1
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;
CREATE INDEX delivery_events_1h_1_key ON delivery_events_1h_1 (domain, bucket);

CREATE MATERIALIZED VIEW delivery_events_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    node_id,
    instance,
    zone,
    domain,
    status,
    category,
    sum(attempts)::bigint AS attempts,
    sum(first_attempts)::bigint AS first_attempts,
    sum(duration_sum) AS duration_sum,
    sum(duration_count)::bigint AS duration_count,
    min(duration_min) AS duration_min,
    max(duration_max) AS duration_max
FROM delivery_events_1h_1
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;
CREATE INDEX delivery_events_daily_1_key ON delivery_events_daily_1 (domain, bucket);
