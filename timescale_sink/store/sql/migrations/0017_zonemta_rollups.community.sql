-- On TimescaleDB Community: metrics_zonemta in columns once it is old, and its rollups.

ALTER TABLE metrics_zonemta SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'time'
);

CREATE MATERIALIZED VIEW metrics_zonemta_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', time) AS bucket,
    node_id, instance, zone, started_at,
    count(*) AS row_count,
    (array_agg(queue_id ORDER BY time DESC) FILTER (WHERE queue_id IS NOT NULL))[1] AS queue_id,
    sum(queue_size) AS queue_size_sum,
    count(queue_size) AS queue_size_count,
    min(queue_size) AS queue_size_min,
    max(queue_size) AS queue_size_max,
    (array_agg(queue_size ORDER BY time DESC) FILTER (WHERE queue_size IS NOT NULL))[1] AS queue_size_last,
    max(time) FILTER (WHERE queue_size IS NOT NULL) AS queue_size_last_time,
    sum(deferred_size) AS deferred_size_sum,
    count(deferred_size) AS deferred_size_count,
    min(deferred_size) AS deferred_size_min,
    max(deferred_size) AS deferred_size_max,
    (array_agg(deferred_size ORDER BY time DESC) FILTER (WHERE deferred_size IS NOT NULL))[1] AS deferred_size_last,
    max(time) FILTER (WHERE deferred_size IS NOT NULL) AS deferred_size_last_time,
    sum(oldest_age) AS oldest_age_sum,
    count(oldest_age) AS oldest_age_count,
    min(oldest_age) AS oldest_age_min,
    max(oldest_age) AS oldest_age_max,
    (array_agg(oldest_age ORDER BY time DESC) FILTER (WHERE oldest_age IS NOT NULL))[1] AS oldest_age_last,
    max(time) FILTER (WHERE oldest_age IS NOT NULL) AS oldest_age_last_time,
    min(delivered_total) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_total_min,
    max(delivered_total) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_total_max,
    (array_agg(delivered_total ORDER BY time) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS delivered_total_first,
    min(time) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_total_first_time,
    (array_agg(delivered_total ORDER BY time DESC) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS delivered_total_last,
    max(time) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS delivered_total_last_time,
    counter_fallen(
        array_agg(delivered_total ORDER BY time) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(delivered_total ORDER BY time) FILTER (WHERE delivered_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS delivered_total_fallen,
    min(rejected_total) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_total_min,
    max(rejected_total) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_total_max,
    (array_agg(rejected_total ORDER BY time) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS rejected_total_first,
    min(time) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_total_first_time,
    (array_agg(rejected_total ORDER BY time DESC) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS rejected_total_last,
    max(time) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rejected_total_last_time,
    counter_fallen(
        array_agg(rejected_total ORDER BY time) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(rejected_total ORDER BY time) FILTER (WHERE rejected_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS rejected_total_fallen,
    min(deferred_total) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_total_min,
    max(deferred_total) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_total_max,
    (array_agg(deferred_total ORDER BY time) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS deferred_total_first,
    min(time) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_total_first_time,
    (array_agg(deferred_total ORDER BY time DESC) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS deferred_total_last,
    max(time) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS deferred_total_last_time,
    counter_fallen(
        array_agg(deferred_total ORDER BY time) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(deferred_total ORDER BY time) FILTER (WHERE deferred_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS deferred_total_fallen,
    min(unknown_total) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS unknown_total_min,
    max(unknown_total) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS unknown_total_max,
    (array_agg(unknown_total ORDER BY time) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS unknown_total_first,
    min(time) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS unknown_total_first_time,
    (array_agg(unknown_total ORDER BY time DESC) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS unknown_total_last,
    max(time) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS unknown_total_last_time,
    counter_fallen(
        array_agg(unknown_total ORDER BY time) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(unknown_total ORDER BY time) FILTER (WHERE unknown_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS unknown_total_fallen
FROM metrics_zonemta
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_zonemta_5m_1_key ON metrics_zonemta_5m_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_zonemta_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    (array_agg(queue_id ORDER BY bucket DESC) FILTER (WHERE queue_id IS NOT NULL))[1] AS queue_id,
    sum(queue_size_sum) AS queue_size_sum,
    sum(queue_size_count)::bigint AS queue_size_count,
    min(queue_size_min) AS queue_size_min,
    max(queue_size_max) AS queue_size_max,
    (array_agg(queue_size_last ORDER BY bucket DESC) FILTER (WHERE queue_size_last IS NOT NULL))[1] AS queue_size_last,
    max(queue_size_last_time) AS queue_size_last_time,
    sum(deferred_size_sum) AS deferred_size_sum,
    sum(deferred_size_count)::bigint AS deferred_size_count,
    min(deferred_size_min) AS deferred_size_min,
    max(deferred_size_max) AS deferred_size_max,
    (array_agg(deferred_size_last ORDER BY bucket DESC) FILTER (WHERE deferred_size_last IS NOT NULL))[1] AS deferred_size_last,
    max(deferred_size_last_time) AS deferred_size_last_time,
    sum(oldest_age_sum) AS oldest_age_sum,
    sum(oldest_age_count)::bigint AS oldest_age_count,
    min(oldest_age_min) AS oldest_age_min,
    max(oldest_age_max) AS oldest_age_max,
    (array_agg(oldest_age_last ORDER BY bucket DESC) FILTER (WHERE oldest_age_last IS NOT NULL))[1] AS oldest_age_last,
    max(oldest_age_last_time) AS oldest_age_last_time,
    min(delivered_total_min) AS delivered_total_min,
    max(delivered_total_max) AS delivered_total_max,
    (array_agg(delivered_total_first ORDER BY bucket) FILTER (WHERE delivered_total_last IS NOT NULL))[1] AS delivered_total_first,
    min(delivered_total_first_time) AS delivered_total_first_time,
    (array_agg(delivered_total_last ORDER BY bucket DESC) FILTER (WHERE delivered_total_last IS NOT NULL))[1] AS delivered_total_last,
    max(delivered_total_last_time) AS delivered_total_last_time,
    sum(delivered_total_fallen) + counter_fallen(
        array_agg(delivered_total_first ORDER BY bucket) FILTER (WHERE delivered_total_last IS NOT NULL),
        array_agg(delivered_total_last ORDER BY bucket) FILTER (WHERE delivered_total_last IS NOT NULL)
    ) AS delivered_total_fallen,
    min(rejected_total_min) AS rejected_total_min,
    max(rejected_total_max) AS rejected_total_max,
    (array_agg(rejected_total_first ORDER BY bucket) FILTER (WHERE rejected_total_last IS NOT NULL))[1] AS rejected_total_first,
    min(rejected_total_first_time) AS rejected_total_first_time,
    (array_agg(rejected_total_last ORDER BY bucket DESC) FILTER (WHERE rejected_total_last IS NOT NULL))[1] AS rejected_total_last,
    max(rejected_total_last_time) AS rejected_total_last_time,
    sum(rejected_total_fallen) + counter_fallen(
        array_agg(rejected_total_first ORDER BY bucket) FILTER (WHERE rejected_total_last IS NOT NULL),
        array_agg(rejected_total_last ORDER BY bucket) FILTER (WHERE rejected_total_last IS NOT NULL)
    ) AS rejected_total_fallen,
    min(deferred_total_min) AS deferred_total_min,
    max(deferred_total_max) AS deferred_total_max,
    (array_agg(deferred_total_first ORDER BY bucket) FILTER (WHERE deferred_total_last IS NOT NULL))[1] AS deferred_total_first,
    min(deferred_total_first_time) AS deferred_total_first_time,
    (array_agg(deferred_total_last ORDER BY bucket DESC) FILTER (WHERE deferred_total_last IS NOT NULL))[1] AS deferred_total_last,
    max(deferred_total_last_time) AS deferred_total_last_time,
    sum(deferred_total_fallen) + counter_fallen(
        array_agg(deferred_total_first ORDER BY bucket) FILTER (WHERE deferred_total_last IS NOT NULL),
        array_agg(deferred_total_last ORDER BY bucket) FILTER (WHERE deferred_total_last IS NOT NULL)
    ) AS deferred_total_fallen,
    min(unknown_total_min) AS unknown_total_min,
    max(unknown_total_max) AS unknown_total_max,
    (array_agg(unknown_total_first ORDER BY bucket) FILTER (WHERE unknown_total_last IS NOT NULL))[1] AS unknown_total_first,
    min(unknown_total_first_time) AS unknown_total_first_time,
    (array_agg(unknown_total_last ORDER BY bucket DESC) FILTER (WHERE unknown_total_last IS NOT NULL))[1] AS unknown_total_last,
    max(unknown_total_last_time) AS unknown_total_last_time,
    sum(unknown_total_fallen) + counter_fallen(
        array_agg(unknown_total_first ORDER BY bucket) FILTER (WHERE unknown_total_last IS NOT NULL),
        array_agg(unknown_total_last ORDER BY bucket) FILTER (WHERE unknown_total_last IS NOT NULL)
    ) AS unknown_total_fallen
FROM metrics_zonemta_5m_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_zonemta_1h_1_key ON metrics_zonemta_1h_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_zonemta_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    (array_agg(queue_id ORDER BY bucket DESC) FILTER (WHERE queue_id IS NOT NULL))[1] AS queue_id,
    sum(queue_size_sum) AS queue_size_sum,
    sum(queue_size_count)::bigint AS queue_size_count,
    min(queue_size_min) AS queue_size_min,
    max(queue_size_max) AS queue_size_max,
    (array_agg(queue_size_last ORDER BY bucket DESC) FILTER (WHERE queue_size_last IS NOT NULL))[1] AS queue_size_last,
    max(queue_size_last_time) AS queue_size_last_time,
    sum(deferred_size_sum) AS deferred_size_sum,
    sum(deferred_size_count)::bigint AS deferred_size_count,
    min(deferred_size_min) AS deferred_size_min,
    max(deferred_size_max) AS deferred_size_max,
    (array_agg(deferred_size_last ORDER BY bucket DESC) FILTER (WHERE deferred_size_last IS NOT NULL))[1] AS deferred_size_last,
    max(deferred_size_last_time) AS deferred_size_last_time,
    sum(oldest_age_sum) AS oldest_age_sum,
    sum(oldest_age_count)::bigint AS oldest_age_count,
    min(oldest_age_min) AS oldest_age_min,
    max(oldest_age_max) AS oldest_age_max,
    (array_agg(oldest_age_last ORDER BY bucket DESC) FILTER (WHERE oldest_age_last IS NOT NULL))[1] AS oldest_age_last,
    max(oldest_age_last_time) AS oldest_age_last_time,
    min(delivered_total_min) AS delivered_total_min,
    max(delivered_total_max) AS delivered_total_max,
    (array_agg(delivered_total_first ORDER BY bucket) FILTER (WHERE delivered_total_last IS NOT NULL))[1] AS delivered_total_first,
    min(delivered_total_first_time) AS delivered_total_first_time,
    (array_agg(delivered_total_last ORDER BY bucket DESC) FILTER (WHERE delivered_total_last IS NOT NULL))[1] AS delivered_total_last,
    max(delivered_total_last_time) AS delivered_total_last_time,
    sum(delivered_total_fallen) + counter_fallen(
        array_agg(delivered_total_first ORDER BY bucket) FILTER (WHERE delivered_total_last IS NOT NULL),
        array_agg(delivered_total_last ORDER BY bucket) FILTER (WHERE delivered_total_last IS NOT NULL)
    ) AS delivered_total_fallen,
    min(rejected_total_min) AS rejected_total_min,
    max(rejected_total_max) AS rejected_total_max,
    (array_agg(rejected_total_first ORDER BY bucket) FILTER (WHERE rejected_total_last IS NOT NULL))[1] AS rejected_total_first,
    min(rejected_total_first_time) AS rejected_total_first_time,
    (array_agg(rejected_total_last ORDER BY bucket DESC) FILTER (WHERE rejected_total_last IS NOT NULL))[1] AS rejected_total_last,
    max(rejected_total_last_time) AS rejected_total_last_time,
    sum(rejected_total_fallen) + counter_fallen(
        array_agg(rejected_total_first ORDER BY bucket) FILTER (WHERE rejected_total_last IS NOT NULL),
        array_agg(rejected_total_last ORDER BY bucket) FILTER (WHERE rejected_total_last IS NOT NULL)
    ) AS rejected_total_fallen,
    min(deferred_total_min) AS deferred_total_min,
    max(deferred_total_max) AS deferred_total_max,
    (array_agg(deferred_total_first ORDER BY bucket) FILTER (WHERE deferred_total_last IS NOT NULL))[1] AS deferred_total_first,
    min(deferred_total_first_time) AS deferred_total_first_time,
    (array_agg(deferred_total_last ORDER BY bucket DESC) FILTER (WHERE deferred_total_last IS NOT NULL))[1] AS deferred_total_last,
    max(deferred_total_last_time) AS deferred_total_last_time,
    sum(deferred_total_fallen) + counter_fallen(
        array_agg(deferred_total_first ORDER BY bucket) FILTER (WHERE deferred_total_last IS NOT NULL),
        array_agg(deferred_total_last ORDER BY bucket) FILTER (WHERE deferred_total_last IS NOT NULL)
    ) AS deferred_total_fallen,
    min(unknown_total_min) AS unknown_total_min,
    max(unknown_total_max) AS unknown_total_max,
    (array_agg(unknown_total_first ORDER BY bucket) FILTER (WHERE unknown_total_last IS NOT NULL))[1] AS unknown_total_first,
    min(unknown_total_first_time) AS unknown_total_first_time,
    (array_agg(unknown_total_last ORDER BY bucket DESC) FILTER (WHERE unknown_total_last IS NOT NULL))[1] AS unknown_total_last,
    max(unknown_total_last_time) AS unknown_total_last_time,
    sum(unknown_total_fallen) + counter_fallen(
        array_agg(unknown_total_first ORDER BY bucket) FILTER (WHERE unknown_total_last IS NOT NULL),
        array_agg(unknown_total_last ORDER BY bucket) FILTER (WHERE unknown_total_last IS NOT NULL)
    ) AS unknown_total_fallen
FROM metrics_zonemta_1h_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_zonemta_daily_1_key ON metrics_zonemta_daily_1 (node_id, instance, zone, bucket);
