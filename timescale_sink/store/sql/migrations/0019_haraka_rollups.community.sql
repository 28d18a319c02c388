-- On TimescaleDB Community: metrics_haraka in columns once it is old, and its rollups.

ALTER TABLE metrics_haraka SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'time'
);

CREATE MATERIALIZED VIEW metrics_haraka_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', time) AS bucket,
    node_id, instance, zone, started_at,
    count(*) AS row_count,
    min(rejected_count) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_count_min,
    max(rejected_count) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_count_max,
    (array_agg(rejected_count ORDER BY time) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS rejected_count_first,
    min(time) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_count_first_time,
    (array_agg(rejected_count ORDER BY time DESC) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS rejected_count_last,
    max(time) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_count_last_time,
    counter_fallen(
        array_agg(rejected_count ORDER BY time) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(rejected_count ORDER BY time) FILTER (WHERE rejected_count IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS rejected_count_fallen,
    min(inbound_total) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS inbound_total_min,
    max(inbound_total) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS inbound_total_max,
    (array_agg(inbound_total ORDER BY time) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS inbound_total_first,
    min(time) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS inbound_total_first_time,
    (array_agg(inbound_total ORDER BY time DESC) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS inbound_total_last,
    max(time) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS inbound_total_last_time,
    counter_fallen(
        array_agg(inbound_total ORDER BY time) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(inbound_total ORDER BY time) FILTER (WHERE inbound_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS inbound_total_fallen,
    min(spam_count) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS spam_count_min,
    max(spam_count) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS spam_count_max,
    (array_agg(spam_count ORDER BY time) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS spam_count_first,
    min(time) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS spam_count_first_time,
    (array_agg(spam_count ORDER BY time DESC) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS spam_count_last,
    max(time) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS spam_count_last_time,
    counter_fallen(
        array_agg(spam_count ORDER BY time) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(spam_count ORDER BY time) FILTER (WHERE spam_count IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS spam_count_fallen,
    min(delivered_count) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_count_min,
    max(delivered_count) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_count_max,
    (array_agg(delivered_count ORDER BY time) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS delivered_count_first,
    min(time) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_count_first_time,
    (array_agg(delivered_count ORDER BY time DESC) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS delivered_count_last,
    max(time) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_count_last_time,
    counter_fallen(
        array_agg(delivered_count ORDER BY time) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(delivered_count ORDER BY time) FILTER (WHERE delivered_count IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS delivered_count_fallen,
    min(bounce_count) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS bounce_count_min,
    max(bounce_count) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS bounce_count_max,
    (array_agg(bounce_count ORDER BY time) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS bounce_count_first,
    min(time) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS bounce_count_first_time,
    (array_agg(bounce_count ORDER BY time DESC) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS bounce_count_last,
    max(time) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS bounce_count_last_time,
    counter_fallen(
        array_agg(bounce_count ORDER BY time) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(bounce_count ORDER BY time) FILTER (WHERE bounce_count IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS bounce_count_fallen,
    min(deferred_count) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_count_min,
    max(deferred_count) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_count_max,
    (array_agg(deferred_count ORDER BY time) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS deferred_count_first,
    min(time) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_count_first_time,
    (array_agg(deferred_count ORDER BY time DESC) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS deferred_count_last,
    max(time) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_count_last_time,
    counter_fallen(
        array_agg(deferred_count ORDER BY time) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(deferred_count ORDER BY time) FILTER (WHERE deferred_count IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS deferred_count_fallen
FROM metrics_haraka
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_haraka_5m_1_key ON metrics_haraka_5m_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_haraka_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    min(rejected_count_min) AS rejected_count_min,
    max(rejected_count_max) AS rejected_count_max,
    (array_agg(rejected_count_first ORDER BY bucket) FILTER (WHERE rejected_count_last IS NOT NULL))[1] AS rejected_count_first,
    min(rejected_count_first_time) AS rejected_count_first_time,
    (array_agg(rejected_count_last ORDER BY bucket DESC) FILTER (WHERE rejected_count_last IS NOT NULL))[1] AS rejected_count_last,
    max(rejected_count_last_time) AS rejected_count_last_time,
    sum(rejected_count_fallen) + counter_fallen(
        array_agg(rejected_count_first ORDER BY bucket) FILTER (WHERE rejected_count_last IS NOT NULL),
        array_agg(rejected_count_last ORDER BY bucket) FILTER (WHERE rejected_count_last IS NOT NULL)
    ) AS rejected_count_fallen,
    min(inbound_total_min) AS inbound_total_min,
    max(inbound_total_max) AS inbound_total_max,
    (array_agg(inbound_total_first ORDER BY bucket) FILTER (WHERE inbound_total_last IS NOT NULL))[1] AS inbound_total_first,
    min(inbound_total_first_time) AS inbound_total_first_time,
    (array_agg(inbound_total_last ORDER BY bucket DESC) FILTER (WHERE inbound_total_last IS NOT NULL))[1] AS inbound_total_last,
    max(inbound_total_last_time) AS inbound_total_last_time,
    sum(inbound_total_fallen) + counter_fallen(
        array_agg(inbound_total_first ORDER BY bucket) FILTER (WHERE inbound_total_last IS NOT NULL),
        array_agg(inbound_total_last ORDER BY bucket) FILTER (WHERE inbound_total_last IS NOT NULL)
    ) AS inbound_total_fallen,
    min(spam_count_min) AS spam_count_min,
    max(spam_count_max) AS spam_count_max,
    (array_agg(spam_count_first ORDER BY bucket) FILTER (WHERE spam_count_last IS NOT NULL))[1] AS spam_count_first,
    min(spam_count_first_time) AS spam_count_first_time,
    (array_agg(spam_count_last ORDER BY bucket DESC) FILTER (WHERE spam_count_last IS NOT NULL))[1] AS spam_count_last,
    max(spam_count_last_time) AS spam_count_last_time,
    sum(spam_count_fallen) + counter_fallen(
        array_agg(spam_count_first ORDER BY bucket) FILTER (WHERE spam_count_last IS NOT NULL),
        array_agg(spam_count_last ORDER BY bucket) FILTER (WHERE spam_count_last IS NOT NULL)
    ) AS spam_count_fallen,
    min(delivered_count_min) AS delivered_count_min,
    max(delivered_count_max) AS delivered_count_max,
    (array_agg(delivered_count_first ORDER BY bucket) FILTER (WHERE delivered_count_last IS NOT NULL))[1] AS delivered_count_first,
    min(delivered_count_first_time) AS delivered_count_first_time,
    (array_agg(delivered_count_last ORDER BY bucket DESC) FILTER (WHERE delivered_count_last IS NOT NULL))[1] AS delivered_count_last,
    max(delivered_count_last_time) AS delivered_count_last_time,
    sum(delivered_count_fallen) + counter_fallen(
        array_agg(delivered_count_first ORDER BY bucket) FILTER (WHERE delivered_count_last IS NOT NULL),
        array_agg(delivered_count_last ORDER BY bucket) FILTER (WHERE delivered_count_last IS NOT NULL)
    ) AS delivered_count_fallen,
    min(bounce_count_min) AS bounce_count_min,
    max(bounce_count_max) AS bounce_count_max,
    (array_agg(bounce_count_first ORDER BY bucket) FILTER (WHERE bounce_count_last IS NOT NULL))[1] AS bounce_count_first,
    min(bounce_count_first_time) AS bounce_count_first_time,
    (array_agg(bounce_count_last ORDER BY bucket DESC) FILTER (WHERE bounce_count_last IS NOT NULL))[1] AS bounce_count_last,
    max(bounce_count_last_time) AS bounce_count_last_time,
    sum(bounce_count_fallen) + counter_fallen(
        array_agg(bounce_count_first ORDER BY bucket) FILTER (WHERE bounce_count_last IS NOT NULL),
        array_agg(bounce_count_last ORDER BY bucket) FILTER (WHERE bounce_count_last IS NOT NULL)
    ) AS bounce_count_fallen,
    min(deferred_count_min) AS deferred_count_min,
    max(deferred_count_max) AS deferred_count_max,
    (array_agg(deferred_count_first ORDER BY bucket) FILTER (WHERE deferred_count_last IS NOT NULL))[1] AS deferred_count_first,
    min(deferred_count_first_time) AS deferred_count_first_time,
    (array_agg(deferred_count_last ORDER BY bucket DESC) FILTER (WHERE deferred_count_last IS NOT NULL))[1] AS deferred_count_last,
    max(deferred_count_last_time) AS deferred_count_last_time,
    sum(deferred_count_fallen) + counter_fallen(
        array_agg(deferred_count_first ORDER BY bucket) FILTER (WHERE deferred_count_last IS NOT NULL),
        array_agg(deferred_count_last ORDER BY bucket) FILTER (WHERE deferred_count_last IS NOT NULL)
    ) AS deferred_count_fallen
FROM metrics_haraka_5m_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_haraka_1h_1_key ON metrics_haraka_1h_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_haraka_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    min(rejected_count_min) AS rejected_count_min,
    max(rejected_count_max) AS rejected_count_max,
    (array_agg(rejected_count_first ORDER BY bucket) FILTER (WHERE rejected_count_last IS NOT NULL))[1] AS rejected_count_first,
    min(rejected_count_first_time) AS rejected_count_first_time,
    (array_agg(rejected_count_last ORDER BY bucket DESC) FILTER (WHERE rejected_count_last IS NOT NULL))[1] AS rejected_count_last,
    max(rejected_count_last_time) AS rejected_count_last_time,
    sum(rejected_count_fallen) + counter_fallen(
        array_agg(rejected_count_first ORDER BY bucket) FILTER (WHERE rejected_count_last IS NOT NULL),
        array_agg(rejected_count_last ORDER BY bucket) FILTER (WHERE rejected_count_last IS NOT NULL)
    ) AS rejected_count_fallen,
    min(inbound_total_min) AS inbound_total_min,
    max(inbound_total_max) AS inbound_total_max,
    (array_agg(inbound_total_first ORDER BY bucket) FILTER (WHERE inbound_total_last IS NOT NULL))[1] AS inbound_total_first,
    min(inbound_total_first_time) AS inbound_total_first_time,
    (array_agg(inbound_total_last ORDER BY bucket DESC) FILTER (WHERE inbound_total_last IS NOT NULL))[1] AS inbound_total_last,
    max(inbound_total_last_time) AS inbound_total_last_time,
    sum(inbound_total_fallen) + counter_fallen(
        array_agg(inbound_total_first ORDER BY bucket) FILTER (WHERE inbound_total_last IS NOT NULL),
        array_agg(inbound_total_last ORDER BY bucket) FILTER (WHERE inbound_total_last IS NOT NULL)
    ) AS inbound_total_fallen,
    min(spam_count_min) AS spam_count_min,
    max(spam_count_max) AS spam_count_max,
    (array_agg(spam_count_first ORDER BY bucket) FILTER (WHERE spam_count_last IS NOT NULL))[1] AS spam_count_first,
    min(spam_count_first_time) AS spam_count_first_time,
    (array_agg(spam_count_last ORDER BY bucket DESC) FILTER (WHERE spam_count_last IS NOT NULL))[1] AS spam_count_last,
    max(spam_count_last_time) AS spam_count_last_time,
    sum(spam_count_fallen) + counter_fallen(
        array_agg(spam_count_first ORDER BY bucket) FILTER (WHERE spam_count_last IS NOT NULL),
        array_agg(spam_count_last ORDER BY bucket) FILTER (WHERE spam_count_last IS NOT NULL)
    ) AS spam_count_fallen,
    min(delivered_count_min) AS delivered_count_min,
    max(delivered_count_max) AS delivered_count_max,
    (array_agg(delivered_count_first ORDER BY bucket) FILTER (WHERE delivered_count_last IS NOT NULL))[1] AS delivered_count_first,
    min(delivered_count_first_time) AS delivered_count_first_time,
    (array_agg(delivered_count_last ORDER BY bucket DESC) FILTER (WHERE delivered_count_last IS NOT NULL))[1] AS delivered_count_last,
    max(delivered_count_last_time) AS delivered_count_last_time,
    sum(delivered_count_fallen) + counter_fallen(
        array_agg(delivered_count_first ORDER BY bucket) FILTER (WHERE delivered_count_last IS NOT NULL),
        array_agg(delivered_count_last ORDER BY bucket) FILTER (WHERE delivered_count_last IS NOT NULL)
    ) AS delivered_count_fallen,
    min(bounce_count_min) AS bounce_count_min,
    max(bounce_count_max) AS bounce_count_max,
    (array_agg(bounce_count_first ORDER BY bucket) FILTER (WHERE bounce_count_last IS NOT NULL))[1] AS bounce_count_first,
    min(bounce_count_first_time) AS bounce_count_first_time,
    (array_agg(bounce_count_last ORDER BY bucket DESC) FILTER (WHERE bounce_count_last IS NOT NULL))[1] AS bounce_count_last,
    max(bounce_count_last_time) AS bounce_count_last_time,
    sum(bounce_count_fallen) + counter_fallen(
        array_agg(bounce_count_first ORDER BY bucket) FILTER (WHERE bounce_count_last IS NOT NULL),
        array_agg(bounce_count_last ORDER BY bucket) FILTER (WHERE bounce_count_last IS NOT NULL)
    ) AS bounce_count_fallen,
    min(deferred_count_min) AS deferred_count_min,
    max(deferred_count_max) AS deferred_count_max,
    (array_agg(deferred_count_first ORDER BY bucket) FILTER (WHERE deferred_count_last IS NOT NULL))[1] AS deferred_count_first,
    min(deferred_count_first_time) AS deferred_count_first_time,
    (array_agg(deferred_count_last ORDER BY bucket DESC) FILTER (WHERE deferred_count_last IS NOT NULL))[1] AS deferred_count_last,
    max(deferred_count_last_time) AS deferred_count_last_time,
    sum(deferred_count_fallen) + counter_fallen(
        array_agg(deferred_count_first ORDER BY bucket) FILTER (WHERE deferred_count_last IS NOT NULL),
        array_agg(deferred_count_last ORDER BY bucket) FILTER (WHERE deferred_count_last IS NOT NULL)
    ) AS deferred_count_fallen
FROM metrics_haraka_1h_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_haraka_daily_1_key ON metrics_haraka_daily_1 (node_id, instance, zone, bucket);
