-- On TimescaleDB Community: rollups of the typed tables in quarters of an hour, quarters of a day, and weeks.
--
-- Of a hundred nodes in three zones a day has 86,400 buckets of five minutes, a year 109,500 days. With these there is a
-- size for every range that has enough steps for a chart and few enough rows to be read at once.

CREATE MATERIALIZED VIEW metrics_haraka_15m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('15 minutes', bucket) AS bucket,
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
CREATE INDEX metrics_haraka_15m_1_key ON metrics_haraka_15m_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_haraka_15m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_haraka_6h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('6 hours', bucket) AS bucket,
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
CREATE INDEX metrics_haraka_6h_1_key ON metrics_haraka_6h_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_haraka_6h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_haraka_weekly_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('168 hours', bucket) AS bucket,
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
FROM metrics_haraka_daily_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_haraka_weekly_1_key ON metrics_haraka_weekly_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_haraka_weekly_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

SELECT set_chunk_time_interval('metrics_haraka_weekly_1', interval '70 days');

CREATE MATERIALIZED VIEW metrics_rspamd_15m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('15 minutes', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    min(scanned_total_min) AS scanned_total_min,
    max(scanned_total_max) AS scanned_total_max,
    (array_agg(scanned_total_first ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL))[1] AS scanned_total_first,
    min(scanned_total_first_time) AS scanned_total_first_time,
    (array_agg(scanned_total_last ORDER BY bucket DESC) FILTER (WHERE scanned_total_last IS NOT NULL))[1] AS scanned_total_last,
    max(scanned_total_last_time) AS scanned_total_last_time,
    sum(scanned_total_fallen) + counter_fallen(
        array_agg(scanned_total_first ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL),
        array_agg(scanned_total_last ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL)
    ) AS scanned_total_fallen,
    min(reject_total_min) AS reject_total_min,
    max(reject_total_max) AS reject_total_max,
    (array_agg(reject_total_first ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL))[1] AS reject_total_first,
    min(reject_total_first_time) AS reject_total_first_time,
    (array_agg(reject_total_last ORDER BY bucket DESC) FILTER (WHERE reject_total_last IS NOT NULL))[1] AS reject_total_last,
    max(reject_total_last_time) AS reject_total_last_time,
    sum(reject_total_fallen) + counter_fallen(
        array_agg(reject_total_first ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL),
        array_agg(reject_total_last ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL)
    ) AS reject_total_fallen,
    min(soft_reject_total_min) AS soft_reject_total_min,
    max(soft_reject_total_max) AS soft_reject_total_max,
    (array_agg(soft_reject_total_first ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL))[1] AS soft_reject_total_first,
    min(soft_reject_total_first_time) AS soft_reject_total_first_time,
    (array_agg(soft_reject_total_last ORDER BY bucket DESC) FILTER (WHERE soft_reject_total_last IS NOT NULL))[1] AS soft_reject_total_last,
    max(soft_reject_total_last_time) AS soft_reject_total_last_time,
    sum(soft_reject_total_fallen) + counter_fallen(
        array_agg(soft_reject_total_first ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL),
        array_agg(soft_reject_total_last ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL)
    ) AS soft_reject_total_fallen,
    min(rewrite_subject_total_min) AS rewrite_subject_total_min,
    max(rewrite_subject_total_max) AS rewrite_subject_total_max,
    (array_agg(rewrite_subject_total_first ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL))[1] AS rewrite_subject_total_first,
    min(rewrite_subject_total_first_time) AS rewrite_subject_total_first_time,
    (array_agg(rewrite_subject_total_last ORDER BY bucket DESC) FILTER (WHERE rewrite_subject_total_last IS NOT NULL))[1] AS rewrite_subject_total_last,
    max(rewrite_subject_total_last_time) AS rewrite_subject_total_last_time,
    sum(rewrite_subject_total_fallen) + counter_fallen(
        array_agg(rewrite_subject_total_first ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL),
        array_agg(rewrite_subject_total_last ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL)
    ) AS rewrite_subject_total_fallen,
    min(add_header_total_min) AS add_header_total_min,
    max(add_header_total_max) AS add_header_total_max,
    (array_agg(add_header_total_first ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL))[1] AS add_header_total_first,
    min(add_header_total_first_time) AS add_header_total_first_time,
    (array_agg(add_header_total_last ORDER BY bucket DESC) FILTER (WHERE add_header_total_last IS NOT NULL))[1] AS add_header_total_last,
    max(add_header_total_last_time) AS add_header_total_last_time,
    sum(add_header_total_fallen) + counter_fallen(
        array_agg(add_header_total_first ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL),
        array_agg(add_header_total_last ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL)
    ) AS add_header_total_fallen,
    min(greylist_total_min) AS greylist_total_min,
    max(greylist_total_max) AS greylist_total_max,
    (array_agg(greylist_total_first ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL))[1] AS greylist_total_first,
    min(greylist_total_first_time) AS greylist_total_first_time,
    (array_agg(greylist_total_last ORDER BY bucket DESC) FILTER (WHERE greylist_total_last IS NOT NULL))[1] AS greylist_total_last,
    max(greylist_total_last_time) AS greylist_total_last_time,
    sum(greylist_total_fallen) + counter_fallen(
        array_agg(greylist_total_first ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL),
        array_agg(greylist_total_last ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL)
    ) AS greylist_total_fallen,
    min(no_action_total_min) AS no_action_total_min,
    max(no_action_total_max) AS no_action_total_max,
    (array_agg(no_action_total_first ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL))[1] AS no_action_total_first,
    min(no_action_total_first_time) AS no_action_total_first_time,
    (array_agg(no_action_total_last ORDER BY bucket DESC) FILTER (WHERE no_action_total_last IS NOT NULL))[1] AS no_action_total_last,
    max(no_action_total_last_time) AS no_action_total_last_time,
    sum(no_action_total_fallen) + counter_fallen(
        array_agg(no_action_total_first ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL),
        array_agg(no_action_total_last ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL)
    ) AS no_action_total_fallen,
    min(learned_total_min) AS learned_total_min,
    max(learned_total_max) AS learned_total_max,
    (array_agg(learned_total_first ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL))[1] AS learned_total_first,
    min(learned_total_first_time) AS learned_total_first_time,
    (array_agg(learned_total_last ORDER BY bucket DESC) FILTER (WHERE learned_total_last IS NOT NULL))[1] AS learned_total_last,
    max(learned_total_last_time) AS learned_total_last_time,
    sum(learned_total_fallen) + counter_fallen(
        array_agg(learned_total_first ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL),
        array_agg(learned_total_last ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL)
    ) AS learned_total_fallen,
    sum(scan_duration_sum) AS scan_duration_sum,
    sum(scan_duration_count)::bigint AS scan_duration_count,
    min(scan_duration_min) AS scan_duration_min,
    max(scan_duration_max) AS scan_duration_max,
    (array_agg(scan_duration_last ORDER BY bucket DESC) FILTER (WHERE scan_duration_last IS NOT NULL))[1] AS scan_duration_last,
    max(scan_duration_last_time) AS scan_duration_last_time
FROM metrics_rspamd_5m_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_rspamd_15m_1_key ON metrics_rspamd_15m_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_rspamd_15m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_rspamd_6h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('6 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    min(scanned_total_min) AS scanned_total_min,
    max(scanned_total_max) AS scanned_total_max,
    (array_agg(scanned_total_first ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL))[1] AS scanned_total_first,
    min(scanned_total_first_time) AS scanned_total_first_time,
    (array_agg(scanned_total_last ORDER BY bucket DESC) FILTER (WHERE scanned_total_last IS NOT NULL))[1] AS scanned_total_last,
    max(scanned_total_last_time) AS scanned_total_last_time,
    sum(scanned_total_fallen) + counter_fallen(
        array_agg(scanned_total_first ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL),
        array_agg(scanned_total_last ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL)
    ) AS scanned_total_fallen,
    min(reject_total_min) AS reject_total_min,
    max(reject_total_max) AS reject_total_max,
    (array_agg(reject_total_first ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL))[1] AS reject_total_first,
    min(reject_total_first_time) AS reject_total_first_time,
    (array_agg(reject_total_last ORDER BY bucket DESC) FILTER (WHERE reject_total_last IS NOT NULL))[1] AS reject_total_last,
    max(reject_total_last_time) AS reject_total_last_time,
    sum(reject_total_fallen) + counter_fallen(
        array_agg(reject_total_first ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL),
        array_agg(reject_total_last ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL)
    ) AS reject_total_fallen,
    min(soft_reject_total_min) AS soft_reject_total_min,
    max(soft_reject_total_max) AS soft_reject_total_max,
    (array_agg(soft_reject_total_first ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL))[1] AS soft_reject_total_first,
    min(soft_reject_total_first_time) AS soft_reject_total_first_time,
    (array_agg(soft_reject_total_last ORDER BY bucket DESC) FILTER (WHERE soft_reject_total_last IS NOT NULL))[1] AS soft_reject_total_last,
    max(soft_reject_total_last_time) AS soft_reject_total_last_time,
    sum(soft_reject_total_fallen) + counter_fallen(
        array_agg(soft_reject_total_first ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL),
        array_agg(soft_reject_total_last ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL)
    ) AS soft_reject_total_fallen,
    min(rewrite_subject_total_min) AS rewrite_subject_total_min,
    max(rewrite_subject_total_max) AS rewrite_subject_total_max,
    (array_agg(rewrite_subject_total_first ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL))[1] AS rewrite_subject_total_first,
    min(rewrite_subject_total_first_time) AS rewrite_subject_total_first_time,
    (array_agg(rewrite_subject_total_last ORDER BY bucket DESC) FILTER (WHERE rewrite_subject_total_last IS NOT NULL))[1] AS rewrite_subject_total_last,
    max(rewrite_subject_total_last_time) AS rewrite_subject_total_last_time,
    sum(rewrite_subject_total_fallen) + counter_fallen(
        array_agg(rewrite_subject_total_first ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL),
        array_agg(rewrite_subject_total_last ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL)
    ) AS rewrite_subject_total_fallen,
    min(add_header_total_min) AS add_header_total_min,
    max(add_header_total_max) AS add_header_total_max,
    (array_agg(add_header_total_first ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL))[1] AS add_header_total_first,
    min(add_header_total_first_time) AS add_header_total_first_time,
    (array_agg(add_header_total_last ORDER BY bucket DESC) FILTER (WHERE add_header_total_last IS NOT NULL))[1] AS add_header_total_last,
    max(add_header_total_last_time) AS add_header_total_last_time,
    sum(add_header_total_fallen) + counter_fallen(
        array_agg(add_header_total_first ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL),
        array_agg(add_header_total_last ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL)
    ) AS add_header_total_fallen,
    min(greylist_total_min) AS greylist_total_min,
    max(greylist_total_max) AS greylist_total_max,
    (array_agg(greylist_total_first ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL))[1] AS greylist_total_first,
    min(greylist_total_first_time) AS greylist_total_first_time,
    (array_agg(greylist_total_last ORDER BY bucket DESC) FILTER (WHERE greylist_total_last IS NOT NULL))[1] AS greylist_total_last,
    max(greylist_total_last_time) AS greylist_total_last_time,
    sum(greylist_total_fallen) + counter_fallen(
        array_agg(greylist_total_first ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL),
        array_agg(greylist_total_last ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL)
    ) AS greylist_total_fallen,
    min(no_action_total_min) AS no_action_total_min,
    max(no_action_total_max) AS no_action_total_max,
    (array_agg(no_action_total_first ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL))[1] AS no_action_total_first,
    min(no_action_total_first_time) AS no_action_total_first_time,
    (array_agg(no_action_total_last ORDER BY bucket DESC) FILTER (WHERE no_action_total_last IS NOT NULL))[1] AS no_action_total_last,
    max(no_action_total_last_time) AS no_action_total_last_time,
    sum(no_action_total_fallen) + counter_fallen(
        array_agg(no_action_total_first ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL),
        array_agg(no_action_total_last ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL)
    ) AS no_action_total_fallen,
    min(learned_total_min) AS learned_total_min,
    max(learned_total_max) AS learned_total_max,
    (array_agg(learned_total_first ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL))[1] AS learned_total_first,
    min(learned_total_first_time) AS learned_total_first_time,
    (array_agg(learned_total_last ORDER BY bucket DESC) FILTER (WHERE learned_total_last IS NOT NULL))[1] AS learned_total_last,
    max(learned_total_last_time) AS learned_total_last_time,
    sum(learned_total_fallen) + counter_fallen(
        array_agg(learned_total_first ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL),
        array_agg(learned_total_last ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL)
    ) AS learned_total_fallen,
    sum(scan_duration_sum) AS scan_duration_sum,
    sum(scan_duration_count)::bigint AS scan_duration_count,
    min(scan_duration_min) AS scan_duration_min,
    max(scan_duration_max) AS scan_duration_max,
    (array_agg(scan_duration_last ORDER BY bucket DESC) FILTER (WHERE scan_duration_last IS NOT NULL))[1] AS scan_duration_last,
    max(scan_duration_last_time) AS scan_duration_last_time
FROM metrics_rspamd_1h_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_rspamd_6h_1_key ON metrics_rspamd_6h_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_rspamd_6h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_rspamd_weekly_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('168 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    min(scanned_total_min) AS scanned_total_min,
    max(scanned_total_max) AS scanned_total_max,
    (array_agg(scanned_total_first ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL))[1] AS scanned_total_first,
    min(scanned_total_first_time) AS scanned_total_first_time,
    (array_agg(scanned_total_last ORDER BY bucket DESC) FILTER (WHERE scanned_total_last IS NOT NULL))[1] AS scanned_total_last,
    max(scanned_total_last_time) AS scanned_total_last_time,
    sum(scanned_total_fallen) + counter_fallen(
        array_agg(scanned_total_first ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL),
        array_agg(scanned_total_last ORDER BY bucket) FILTER (WHERE scanned_total_last IS NOT NULL)
    ) AS scanned_total_fallen,
    min(reject_total_min) AS reject_total_min,
    max(reject_total_max) AS reject_total_max,
    (array_agg(reject_total_first ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL))[1] AS reject_total_first,
    min(reject_total_first_time) AS reject_total_first_time,
    (array_agg(reject_total_last ORDER BY bucket DESC) FILTER (WHERE reject_total_last IS NOT NULL))[1] AS reject_total_last,
    max(reject_total_last_time) AS reject_total_last_time,
    sum(reject_total_fallen) + counter_fallen(
        array_agg(reject_total_first ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL),
        array_agg(reject_total_last ORDER BY bucket) FILTER (WHERE reject_total_last IS NOT NULL)
    ) AS reject_total_fallen,
    min(soft_reject_total_min) AS soft_reject_total_min,
    max(soft_reject_total_max) AS soft_reject_total_max,
    (array_agg(soft_reject_total_first ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL))[1] AS soft_reject_total_first,
    min(soft_reject_total_first_time) AS soft_reject_total_first_time,
    (array_agg(soft_reject_total_last ORDER BY bucket DESC) FILTER (WHERE soft_reject_total_last IS NOT NULL))[1] AS soft_reject_total_last,
    max(soft_reject_total_last_time) AS soft_reject_total_last_time,
    sum(soft_reject_total_fallen) + counter_fallen(
        array_agg(soft_reject_total_first ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL),
        array_agg(soft_reject_total_last ORDER BY bucket) FILTER (WHERE soft_reject_total_last IS NOT NULL)
    ) AS soft_reject_total_fallen,
    min(rewrite_subject_total_min) AS rewrite_subject_total_min,
    max(rewrite_subject_total_max) AS rewrite_subject_total_max,
    (array_agg(rewrite_subject_total_first ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL))[1] AS rewrite_subject_total_first,
    min(rewrite_subject_total_first_time) AS rewrite_subject_total_first_time,
    (array_agg(rewrite_subject_total_last ORDER BY bucket DESC) FILTER (WHERE rewrite_subject_total_last IS NOT NULL))[1] AS rewrite_subject_total_last,
    max(rewrite_subject_total_last_time) AS rewrite_subject_total_last_time,
    sum(rewrite_subject_total_fallen) + counter_fallen(
        array_agg(rewrite_subject_total_first ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL),
        array_agg(rewrite_subject_total_last ORDER BY bucket) FILTER (WHERE rewrite_subject_total_last IS NOT NULL)
    ) AS rewrite_subject_total_fallen,
    min(add_header_total_min) AS add_header_total_min,
    max(add_header_total_max) AS add_header_total_max,
    (array_agg(add_header_total_first ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL))[1] AS add_header_total_first,
    min(add_header_total_first_time) AS add_header_total_first_time,
    (array_agg(add_header_total_last ORDER BY bucket DESC) FILTER (WHERE add_header_total_last IS NOT NULL))[1] AS add_header_total_last,
    max(add_header_total_last_time) AS add_header_total_last_time,
    sum(add_header_total_fallen) + counter_fallen(
        array_agg(add_header_total_first ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL),
        array_agg(add_header_total_last ORDER BY bucket) FILTER (WHERE add_header_total_last IS NOT NULL)
    ) AS add_header_total_fallen,
    min(greylist_total_min) AS greylist_total_min,
    max(greylist_total_max) AS greylist_total_max,
    (array_agg(greylist_total_first ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL))[1] AS greylist_total_first,
    min(greylist_total_first_time) AS greylist_total_first_time,
    (array_agg(greylist_total_last ORDER BY bucket DESC) FILTER (WHERE greylist_total_last IS NOT NULL))[1] AS greylist_total_last,
    max(greylist_total_last_time) AS greylist_total_last_time,
    sum(greylist_total_fallen) + counter_fallen(
        array_agg(greylist_total_first ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL),
        array_agg(greylist_total_last ORDER BY bucket) FILTER (WHERE greylist_total_last IS NOT NULL)
    ) AS greylist_total_fallen,
    min(no_action_total_min) AS no_action_total_min,
    max(no_action_total_max) AS no_action_total_max,
    (array_agg(no_action_total_first ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL))[1] AS no_action_total_first,
    min(no_action_total_first_time) AS no_action_total_first_time,
    (array_agg(no_action_total_last ORDER BY bucket DESC) FILTER (WHERE no_action_total_last IS NOT NULL))[1] AS no_action_total_last,
    max(no_action_total_last_time) AS no_action_total_last_time,
    sum(no_action_total_fallen) + counter_fallen(
        array_agg(no_action_total_first ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL),
        array_agg(no_action_total_last ORDER BY bucket) FILTER (WHERE no_action_total_last IS NOT NULL)
    ) AS no_action_total_fallen,
    min(learned_total_min) AS learned_total_min,
    max(learned_total_max) AS learned_total_max,
    (array_agg(learned_total_first ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL))[1] AS learned_total_first,
    min(learned_total_first_time) AS learned_total_first_time,
    (array_agg(learned_total_last ORDER BY bucket DESC) FILTER (WHERE learned_total_last IS NOT NULL))[1] AS learned_total_last,
    max(learned_total_last_time) AS learned_total_last_time,
    sum(learned_total_fallen) + counter_fallen(
        array_agg(learned_total_first ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL),
        array_agg(learned_total_last ORDER BY bucket) FILTER (WHERE learned_total_last IS NOT NULL)
    ) AS learned_total_fallen,
    sum(scan_duration_sum) AS scan_duration_sum,
    sum(scan_duration_count)::bigint AS scan_duration_count,
    min(scan_duration_min) AS scan_duration_min,
    max(scan_duration_max) AS scan_duration_max,
    (array_agg(scan_duration_last ORDER BY bucket DESC) FILTER (WHERE scan_duration_last IS NOT NULL))[1] AS scan_duration_last,
    max(scan_duration_last_time) AS scan_duration_last_time
FROM metrics_rspamd_daily_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_rspamd_weekly_1_key ON metrics_rspamd_weekly_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_rspamd_weekly_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

SELECT set_chunk_time_interval('metrics_rspamd_weekly_1', interval '70 days');

CREATE MATERIALIZED VIEW metrics_system_15m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('15 minutes', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    sum(cpu_load_sum) AS cpu_load_sum,
    sum(cpu_load_count)::bigint AS cpu_load_count,
    min(cpu_load_min) AS cpu_load_min,
    max(cpu_load_max) AS cpu_load_max,
    (array_agg(cpu_load_last ORDER BY bucket DESC) FILTER (WHERE cpu_load_last IS NOT NULL))[1] AS cpu_load_last,
    max(cpu_load_last_time) AS cpu_load_last_time,
    sum(memory_percent_sum) AS memory_percent_sum,
    sum(memory_percent_count)::bigint AS memory_percent_count,
    min(memory_percent_min) AS memory_percent_min,
    max(memory_percent_max) AS memory_percent_max,
    (array_agg(memory_percent_last ORDER BY bucket DESC) FILTER (WHERE memory_percent_last IS NOT NULL))[1] AS memory_percent_last,
    max(memory_percent_last_time) AS memory_percent_last_time,
    sum(memory_used_sum) AS memory_used_sum,
    sum(memory_used_count)::bigint AS memory_used_count,
    min(memory_used_min) AS memory_used_min,
    max(memory_used_max) AS memory_used_max,
    (array_agg(memory_used_last ORDER BY bucket DESC) FILTER (WHERE memory_used_last IS NOT NULL))[1] AS memory_used_last,
    max(memory_used_last_time) AS memory_used_last_time,
    sum(disk_used_sum) AS disk_used_sum,
    sum(disk_used_count)::bigint AS disk_used_count,
    min(disk_used_min) AS disk_used_min,
    max(disk_used_max) AS disk_used_max,
    (array_agg(disk_used_last ORDER BY bucket DESC) FILTER (WHERE disk_used_last IS NOT NULL))[1] AS disk_used_last,
    max(disk_used_last_time) AS disk_used_last_time,
    sum(disk_percent_sum) AS disk_percent_sum,
    sum(disk_percent_count)::bigint AS disk_percent_count,
    min(disk_percent_min) AS disk_percent_min,
    max(disk_percent_max) AS disk_percent_max,
    (array_agg(disk_percent_last ORDER BY bucket DESC) FILTER (WHERE disk_percent_last IS NOT NULL))[1] AS disk_percent_last,
    max(disk_percent_last_time) AS disk_percent_last_time,
    min(network_in_min) AS network_in_min,
    max(network_in_max) AS network_in_max,
    (array_agg(network_in_first ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL))[1] AS network_in_first,
    min(network_in_first_time) AS network_in_first_time,
    (array_agg(network_in_last ORDER BY bucket DESC) FILTER (WHERE network_in_last IS NOT NULL))[1] AS network_in_last,
    max(network_in_last_time) AS network_in_last_time,
    sum(network_in_fallen) + counter_fallen(
        array_agg(network_in_first ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL),
        array_agg(network_in_last ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL)
    ) AS network_in_fallen,
    min(network_out_min) AS network_out_min,
    max(network_out_max) AS network_out_max,
    (array_agg(network_out_first ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL))[1] AS network_out_first,
    min(network_out_first_time) AS network_out_first_time,
    (array_agg(network_out_last ORDER BY bucket DESC) FILTER (WHERE network_out_last IS NOT NULL))[1] AS network_out_last,
    max(network_out_last_time) AS network_out_last_time,
    sum(network_out_fallen) + counter_fallen(
        array_agg(network_out_first ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL),
        array_agg(network_out_last ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL)
    ) AS network_out_fallen,
    sum(load_1m_sum) AS load_1m_sum,
    sum(load_1m_count)::bigint AS load_1m_count,
    min(load_1m_min) AS load_1m_min,
    max(load_1m_max) AS load_1m_max,
    (array_agg(load_1m_last ORDER BY bucket DESC) FILTER (WHERE load_1m_last IS NOT NULL))[1] AS load_1m_last,
    max(load_1m_last_time) AS load_1m_last_time,
    sum(process_count_sum) AS process_count_sum,
    sum(process_count_count)::bigint AS process_count_count,
    min(process_count_min) AS process_count_min,
    max(process_count_max) AS process_count_max,
    (array_agg(process_count_last ORDER BY bucket DESC) FILTER (WHERE process_count_last IS NOT NULL))[1] AS process_count_last,
    max(process_count_last_time) AS process_count_last_time
FROM metrics_system_5m_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_system_15m_1_key ON metrics_system_15m_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_system_15m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_system_6h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('6 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    sum(cpu_load_sum) AS cpu_load_sum,
    sum(cpu_load_count)::bigint AS cpu_load_count,
    min(cpu_load_min) AS cpu_load_min,
    max(cpu_load_max) AS cpu_load_max,
    (array_agg(cpu_load_last ORDER BY bucket DESC) FILTER (WHERE cpu_load_last IS NOT NULL))[1] AS cpu_load_last,
    max(cpu_load_last_time) AS cpu_load_last_time,
    sum(memory_percent_sum) AS memory_percent_sum,
    sum(memory_percent_count)::bigint AS memory_percent_count,
    min(memory_percent_min) AS memory_percent_min,
    max(memory_percent_max) AS memory_percent_max,
    (array_agg(memory_percent_last ORDER BY bucket DESC) FILTER (WHERE memory_percent_last IS NOT NULL))[1] AS memory_percent_last,
    max(memory_percent_last_time) AS memory_percent_last_time,
    sum(memory_used_sum) AS memory_used_sum,
    sum(memory_used_count)::bigint AS memory_used_count,
    min(memory_used_min) AS memory_used_min,
    max(memory_used_max) AS memory_used_max,
    (array_agg(memory_used_last ORDER BY bucket DESC) FILTER (WHERE memory_used_last IS NOT NULL))[1] AS memory_used_last,
    max(memory_used_last_time) AS memory_used_last_time,
    sum(disk_used_sum) AS disk_used_sum,
    sum(disk_used_count)::bigint AS disk_used_count,
    min(disk_used_min) AS disk_used_min,
    max(disk_used_max) AS disk_used_max,
    (array_agg(disk_used_last ORDER BY bucket DESC) FILTER (WHERE disk_used_last IS NOT NULL))[1] AS disk_used_last,
    max(disk_used_last_time) AS disk_used_last_time,
    sum(disk_percent_sum) AS disk_percent_sum,
    sum(disk_percent_count)::bigint AS disk_percent_count,
    min(disk_percent_min) AS disk_percent_min,
    max(disk_percent_max) AS disk_percent_max,
    (array_agg(disk_percent_last ORDER BY bucket DESC) FILTER (WHERE disk_percent_last IS NOT NULL))[1] AS disk_percent_last,
    max(disk_percent_last_time) AS disk_percent_last_time,
    min(network_in_min) AS network_in_min,
    max(network_in_max) AS network_in_max,
    (array_agg(network_in_first ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL))[1] AS network_in_first,
    min(network_in_first_time) AS network_in_first_time,
    (array_agg(network_in_last ORDER BY bucket DESC) FILTER (WHERE network_in_last IS NOT NULL))[1] AS network_in_last,
    max(network_in_last_time) AS network_in_last_time,
    sum(network_in_fallen) + counter_fallen(
        array_agg(network_in_first ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL),
        array_agg(network_in_last ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL)
    ) AS network_in_fallen,
    min(network_out_min) AS network_out_min,
    max(network_out_max) AS network_out_max,
    (array_agg(network_out_first ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL))[1] AS network_out_first,
    min(network_out_first_time) AS network_out_first_time,
    (array_agg(network_out_last ORDER BY bucket DESC) FILTER (WHERE network_out_last IS NOT NULL))[1] AS network_out_last,
    max(network_out_last_time) AS network_out_last_time,
    sum(network_out_fallen) + counter_fallen(
        array_agg(network_out_first ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL),
        array_agg(network_out_last ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL)
    ) AS network_out_fallen,
    sum(load_1m_sum) AS load_1m_sum,
    sum(load_1m_count)::bigint AS load_1m_count,
    min(load_1m_min) AS load_1m_min,
    max(load_1m_max) AS load_1m_max,
    (array_agg(load_1m_last ORDER BY bucket DESC) FILTER (WHERE load_1m_last IS NOT NULL))[1] AS load_1m_last,
    max(load_1m_last_time) AS load_1m_last_time,
    sum(process_count_sum) AS process_count_sum,
    sum(process_count_count)::bigint AS process_count_count,
    min(process_count_min) AS process_count_min,
    max(process_count_max) AS process_count_max,
    (array_agg(process_count_last ORDER BY bucket DESC) FILTER (WHERE process_count_last IS NOT NULL))[1] AS process_count_last,
    max(process_count_last_time) AS process_count_last_time
FROM metrics_system_1h_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_system_6h_1_key ON metrics_system_6h_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_system_6h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_system_weekly_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('168 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    sum(cpu_load_sum) AS cpu_load_sum,
    sum(cpu_load_count)::bigint AS cpu_load_count,
    min(cpu_load_min) AS cpu_load_min,
    max(cpu_load_max) AS cpu_load_max,
    (array_agg(cpu_load_last ORDER BY bucket DESC) FILTER (WHERE cpu_load_last IS NOT NULL))[1] AS cpu_load_last,
    max(cpu_load_last_time) AS cpu_load_last_time,
    sum(memory_percent_sum) AS memory_percent_sum,
    sum(memory_percent_count)::bigint AS memory_percent_count,
    min(memory_percent_min) AS memory_percent_min,
    max(memory_percent_max) AS memory_percent_max,
    (array_agg(memory_percent_last ORDER BY bucket DESC) FILTER (WHERE memory_percent_last IS NOT NULL))[1] AS memory_percent_last,
    max(memory_percent_last_time) AS memory_percent_last_time,
    sum(memory_used_sum) AS memory_used_sum,
    sum(memory_used_count)::bigint AS memory_used_count,
    min(memory_used_min) AS memory_used_min,
    max(memory_used_max) AS memory_used_max,
    (array_agg(memory_used_last ORDER BY bucket DESC) FILTER (WHERE memory_used_last IS NOT NULL))[1] AS memory_used_last,
    max(memory_used_last_time) AS memory_used_last_time,
    sum(disk_used_sum) AS disk_used_sum,
    sum(disk_used_count)::bigint AS disk_used_count,
    min(disk_used_min) AS disk_used_min,
    max(disk_used_max) AS disk_used_max,
    (array_agg(disk_used_last ORDER BY bucket DESC) FILTER (WHERE disk_used_last IS NOT NULL))[1] AS disk_used_last,
    max(disk_used_last_time) AS disk_used_last_time,
    sum(disk_percent_sum) AS disk_percent_sum,
    sum(disk_percent_count)::bigint AS disk_percent_count,
    min(disk_percent_min) AS disk_percent_min,
    max(disk_percent_max) AS disk_percent_max,
    (array_agg(disk_percent_last ORDER BY bucket DESC) FILTER (WHERE disk_percent_last IS NOT NULL))[1] AS disk_percent_last,
    max(disk_percent_last_time) AS disk_percent_last_time,
    min(network_in_min) AS network_in_min,
    max(network_in_max) AS network_in_max,
    (array_agg(network_in_first ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL))[1] AS network_in_first,
    min(network_in_first_time) AS network_in_first_time,
    (array_agg(network_in_last ORDER BY bucket DESC) FILTER (WHERE network_in_last IS NOT NULL))[1] AS network_in_last,
    max(network_in_last_time) AS network_in_last_time,
    sum(network_in_fallen) + counter_fallen(
        array_agg(network_in_first ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL),
        array_agg(network_in_last ORDER BY bucket) FILTER (WHERE network_in_last IS NOT NULL)
    ) AS network_in_fallen,
    min(network_out_min) AS network_out_min,
    max(network_out_max) AS network_out_max,
    (array_agg(network_out_first ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL))[1] AS network_out_first,
    min(network_out_first_time) AS network_out_first_time,
    (array_agg(network_out_last ORDER BY bucket DESC) FILTER (WHERE network_out_last IS NOT NULL))[1] AS network_out_last,
    max(network_out_last_time) AS network_out_last_time,
    sum(network_out_fallen) + counter_fallen(
        array_agg(network_out_first ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL),
        array_agg(network_out_last ORDER BY bucket) FILTER (WHERE network_out_last IS NOT NULL)
    ) AS network_out_fallen,
    sum(load_1m_sum) AS load_1m_sum,
    sum(load_1m_count)::bigint AS load_1m_count,
    min(load_1m_min) AS load_1m_min,
    max(load_1m_max) AS load_1m_max,
    (array_agg(load_1m_last ORDER BY bucket DESC) FILTER (WHERE load_1m_last IS NOT NULL))[1] AS load_1m_last,
    max(load_1m_last_time) AS load_1m_last_time,
    sum(process_count_sum) AS process_count_sum,
    sum(process_count_count)::bigint AS process_count_count,
    min(process_count_min) AS process_count_min,
    max(process_count_max) AS process_count_max,
    (array_agg(process_count_last ORDER BY bucket DESC) FILTER (WHERE process_count_last IS NOT NULL))[1] AS process_count_last,
    max(process_count_last_time) AS process_count_last_time
FROM metrics_system_daily_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_system_weekly_1_key ON metrics_system_weekly_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_system_weekly_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

SELECT set_chunk_time_interval('metrics_system_weekly_1', interval '70 days');

CREATE MATERIALIZED VIEW metrics_wildduck_15m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('15 minutes', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    sum(user_count_sum) AS user_count_sum,
    sum(user_count_count)::bigint AS user_count_count,
    min(user_count_min) AS user_count_min,
    max(user_count_max) AS user_count_max,
    (array_agg(user_count_last ORDER BY bucket DESC) FILTER (WHERE user_count_last IS NOT NULL))[1] AS user_count_last,
    max(user_count_last_time) AS user_count_last_time,
    sum(storage_usage_sum) AS storage_usage_sum,
    sum(storage_usage_count)::bigint AS storage_usage_count,
    min(storage_usage_min) AS storage_usage_min,
    max(storage_usage_max) AS storage_usage_max,
    (array_agg(storage_usage_last ORDER BY bucket DESC) FILTER (WHERE storage_usage_last IS NOT NULL))[1] AS storage_usage_last,
    max(storage_usage_last_time) AS storage_usage_last_time,
    sum(storage_limit_sum) AS storage_limit_sum,
    sum(storage_limit_count)::bigint AS storage_limit_count,
    min(storage_limit_min) AS storage_limit_min,
    max(storage_limit_max) AS storage_limit_max,
    (array_agg(storage_limit_last ORDER BY bucket DESC) FILTER (WHERE storage_limit_last IS NOT NULL))[1] AS storage_limit_last,
    max(storage_limit_last_time) AS storage_limit_last_time,
    sum(over_quota_count_sum) AS over_quota_count_sum,
    sum(over_quota_count_count)::bigint AS over_quota_count_count,
    min(over_quota_count_min) AS over_quota_count_min,
    max(over_quota_count_max) AS over_quota_count_max,
    (array_agg(over_quota_count_last ORDER BY bucket DESC) FILTER (WHERE over_quota_count_last IS NOT NULL))[1] AS over_quota_count_last,
    max(over_quota_count_last_time) AS over_quota_count_last_time,
    sum(near_quota_count_sum) AS near_quota_count_sum,
    sum(near_quota_count_count)::bigint AS near_quota_count_count,
    min(near_quota_count_min) AS near_quota_count_min,
    max(near_quota_count_max) AS near_quota_count_max,
    (array_agg(near_quota_count_last ORDER BY bucket DESC) FILTER (WHERE near_quota_count_last IS NOT NULL))[1] AS near_quota_count_last,
    max(near_quota_count_last_time) AS near_quota_count_last_time,
    sum(mailbox_count_sum) AS mailbox_count_sum,
    sum(mailbox_count_count)::bigint AS mailbox_count_count,
    min(mailbox_count_min) AS mailbox_count_min,
    max(mailbox_count_max) AS mailbox_count_max,
    (array_agg(mailbox_count_last ORDER BY bucket DESC) FILTER (WHERE mailbox_count_last IS NOT NULL))[1] AS mailbox_count_last,
    max(mailbox_count_last_time) AS mailbox_count_last_time,
    sum(message_count_sum) AS message_count_sum,
    sum(message_count_count)::bigint AS message_count_count,
    min(message_count_min) AS message_count_min,
    max(message_count_max) AS message_count_max,
    (array_agg(message_count_last ORDER BY bucket DESC) FILTER (WHERE message_count_last IS NOT NULL))[1] AS message_count_last,
    max(message_count_last_time) AS message_count_last_time,
    sum(unseen_count_sum) AS unseen_count_sum,
    sum(unseen_count_count)::bigint AS unseen_count_count,
    min(unseen_count_min) AS unseen_count_min,
    max(unseen_count_max) AS unseen_count_max,
    (array_agg(unseen_count_last ORDER BY bucket DESC) FILTER (WHERE unseen_count_last IS NOT NULL))[1] AS unseen_count_last,
    max(unseen_count_last_time) AS unseen_count_last_time,
    sum(mailbox_size_sum) AS mailbox_size_sum,
    sum(mailbox_size_count)::bigint AS mailbox_size_count,
    min(mailbox_size_min) AS mailbox_size_min,
    max(mailbox_size_max) AS mailbox_size_max,
    (array_agg(mailbox_size_last ORDER BY bucket DESC) FILTER (WHERE mailbox_size_last IS NOT NULL))[1] AS mailbox_size_last,
    max(mailbox_size_last_time) AS mailbox_size_last_time,
    sum(imap_connections_sum) AS imap_connections_sum,
    sum(imap_connections_count)::bigint AS imap_connections_count,
    min(imap_connections_min) AS imap_connections_min,
    max(imap_connections_max) AS imap_connections_max,
    (array_agg(imap_connections_last ORDER BY bucket DESC) FILTER (WHERE imap_connections_last IS NOT NULL))[1] AS imap_connections_last,
    max(imap_connections_last_time) AS imap_connections_last_time,
    sum(pop3_connections_sum) AS pop3_connections_sum,
    sum(pop3_connections_count)::bigint AS pop3_connections_count,
    min(pop3_connections_min) AS pop3_connections_min,
    max(pop3_connections_max) AS pop3_connections_max,
    (array_agg(pop3_connections_last ORDER BY bucket DESC) FILTER (WHERE pop3_connections_last IS NOT NULL))[1] AS pop3_connections_last,
    max(pop3_connections_last_time) AS pop3_connections_last_time,
    min(lmtp_accepted_total_min) AS lmtp_accepted_total_min,
    max(lmtp_accepted_total_max) AS lmtp_accepted_total_max,
    (array_agg(lmtp_accepted_total_first ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL))[1] AS lmtp_accepted_total_first,
    min(lmtp_accepted_total_first_time) AS lmtp_accepted_total_first_time,
    (array_agg(lmtp_accepted_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL))[1] AS lmtp_accepted_total_last,
    max(lmtp_accepted_total_last_time) AS lmtp_accepted_total_last_time,
    sum(lmtp_accepted_total_fallen) + counter_fallen(
        array_agg(lmtp_accepted_total_first ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL),
        array_agg(lmtp_accepted_total_last ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL)
    ) AS lmtp_accepted_total_fallen,
    min(lmtp_rejected_total_min) AS lmtp_rejected_total_min,
    max(lmtp_rejected_total_max) AS lmtp_rejected_total_max,
    (array_agg(lmtp_rejected_total_first ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL))[1] AS lmtp_rejected_total_first,
    min(lmtp_rejected_total_first_time) AS lmtp_rejected_total_first_time,
    (array_agg(lmtp_rejected_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL))[1] AS lmtp_rejected_total_last,
    max(lmtp_rejected_total_last_time) AS lmtp_rejected_total_last_time,
    sum(lmtp_rejected_total_fallen) + counter_fallen(
        array_agg(lmtp_rejected_total_first ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL),
        array_agg(lmtp_rejected_total_last ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL)
    ) AS lmtp_rejected_total_fallen,
    min(lmtp_error_total_min) AS lmtp_error_total_min,
    max(lmtp_error_total_max) AS lmtp_error_total_max,
    (array_agg(lmtp_error_total_first ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL))[1] AS lmtp_error_total_first,
    min(lmtp_error_total_first_time) AS lmtp_error_total_first_time,
    (array_agg(lmtp_error_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_error_total_last IS NOT NULL))[1] AS lmtp_error_total_last,
    max(lmtp_error_total_last_time) AS lmtp_error_total_last_time,
    sum(lmtp_error_total_fallen) + counter_fallen(
        array_agg(lmtp_error_total_first ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL),
        array_agg(lmtp_error_total_last ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL)
    ) AS lmtp_error_total_fallen
FROM metrics_wildduck_5m_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_wildduck_15m_1_key ON metrics_wildduck_15m_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_wildduck_15m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_wildduck_6h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('6 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    sum(user_count_sum) AS user_count_sum,
    sum(user_count_count)::bigint AS user_count_count,
    min(user_count_min) AS user_count_min,
    max(user_count_max) AS user_count_max,
    (array_agg(user_count_last ORDER BY bucket DESC) FILTER (WHERE user_count_last IS NOT NULL))[1] AS user_count_last,
    max(user_count_last_time) AS user_count_last_time,
    sum(storage_usage_sum) AS storage_usage_sum,
    sum(storage_usage_count)::bigint AS storage_usage_count,
    min(storage_usage_min) AS storage_usage_min,
    max(storage_usage_max) AS storage_usage_max,
    (array_agg(storage_usage_last ORDER BY bucket DESC) FILTER (WHERE storage_usage_last IS NOT NULL))[1] AS storage_usage_last,
    max(storage_usage_last_time) AS storage_usage_last_time,
    sum(storage_limit_sum) AS storage_limit_sum,
    sum(storage_limit_count)::bigint AS storage_limit_count,
    min(storage_limit_min) AS storage_limit_min,
    max(storage_limit_max) AS storage_limit_max,
    (array_agg(storage_limit_last ORDER BY bucket DESC) FILTER (WHERE storage_limit_last IS NOT NULL))[1] AS storage_limit_last,
    max(storage_limit_last_time) AS storage_limit_last_time,
    sum(over_quota_count_sum) AS over_quota_count_sum,
    sum(over_quota_count_count)::bigint AS over_quota_count_count,
    min(over_quota_count_min) AS over_quota_count_min,
    max(over_quota_count_max) AS over_quota_count_max,
    (array_agg(over_quota_count_last ORDER BY bucket DESC) FILTER (WHERE over_quota_count_last IS NOT NULL))[1] AS over_quota_count_last,
    max(over_quota_count_last_time) AS over_quota_count_last_time,
    sum(near_quota_count_sum) AS near_quota_count_sum,
    sum(near_quota_count_count)::bigint AS near_quota_count_count,
    min(near_quota_count_min) AS near_quota_count_min,
    max(near_quota_count_max) AS near_quota_count_max,
    (array_agg(near_quota_count_last ORDER BY bucket DESC) FILTER (WHERE near_quota_count_last IS NOT NULL))[1] AS near_quota_count_last,
    max(near_quota_count_last_time) AS near_quota_count_last_time,
    sum(mailbox_count_sum) AS mailbox_count_sum,
    sum(mailbox_count_count)::bigint AS mailbox_count_count,
    min(mailbox_count_min) AS mailbox_count_min,
    max(mailbox_count_max) AS mailbox_count_max,
    (array_agg(mailbox_count_last ORDER BY bucket DESC) FILTER (WHERE mailbox_count_last IS NOT NULL))[1] AS mailbox_count_last,
    max(mailbox_count_last_time) AS mailbox_count_last_time,
    sum(message_count_sum) AS message_count_sum,
    sum(message_count_count)::bigint AS message_count_count,
    min(message_count_min) AS message_count_min,
    max(message_count_max) AS message_count_max,
    (array_agg(message_count_last ORDER BY bucket DESC) FILTER (WHERE message_count_last IS NOT NULL))[1] AS message_count_last,
    max(message_count_last_time) AS message_count_last_time,
    sum(unseen_count_sum) AS unseen_count_sum,
    sum(unseen_count_count)::bigint AS unseen_count_count,
    min(unseen_count_min) AS unseen_count_min,
    max(unseen_count_max) AS unseen_count_max,
    (array_agg(unseen_count_last ORDER BY bucket DESC) FILTER (WHERE unseen_count_last IS NOT NULL))[1] AS unseen_count_last,
    max(unseen_count_last_time) AS unseen_count_last_time,
    sum(mailbox_size_sum) AS mailbox_size_sum,
    sum(mailbox_size_count)::bigint AS mailbox_size_count,
    min(mailbox_size_min) AS mailbox_size_min,
    max(mailbox_size_max) AS mailbox_size_max,
    (array_agg(mailbox_size_last ORDER BY bucket DESC) FILTER (WHERE mailbox_size_last IS NOT NULL))[1] AS mailbox_size_last,
    max(mailbox_size_last_time) AS mailbox_size_last_time,
    sum(imap_connections_sum) AS imap_connections_sum,
    sum(imap_connections_count)::bigint AS imap_connections_count,
    min(imap_connections_min) AS imap_connections_min,
    max(imap_connections_max) AS imap_connections_max,
    (array_agg(imap_connections_last ORDER BY bucket DESC) FILTER (WHERE imap_connections_last IS NOT NULL))[1] AS imap_connections_last,
    max(imap_connections_last_time) AS imap_connections_last_time,
    sum(pop3_connections_sum) AS pop3_connections_sum,
    sum(pop3_connections_count)::bigint AS pop3_connections_count,
    min(pop3_connections_min) AS pop3_connections_min,
    max(pop3_connections_max) AS pop3_connections_max,
    (array_agg(pop3_connections_last ORDER BY bucket DESC) FILTER (WHERE pop3_connections_last IS NOT NULL))[1] AS pop3_connections_last,
    max(pop3_connections_last_time) AS pop3_connections_last_time,
    min(lmtp_accepted_total_min) AS lmtp_accepted_total_min,
    max(lmtp_accepted_total_max) AS lmtp_accepted_total_max,
    (array_agg(lmtp_accepted_total_first ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL))[1] AS lmtp_accepted_total_first,
    min(lmtp_accepted_total_first_time) AS lmtp_accepted_total_first_time,
    (array_agg(lmtp_accepted_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL))[1] AS lmtp_accepted_total_last,
    max(lmtp_accepted_total_last_time) AS lmtp_accepted_total_last_time,
    sum(lmtp_accepted_total_fallen) + counter_fallen(
        array_agg(lmtp_accepted_total_first ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL),
        array_agg(lmtp_accepted_total_last ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL)
    ) AS lmtp_accepted_total_fallen,
    min(lmtp_rejected_total_min) AS lmtp_rejected_total_min,
    max(lmtp_rejected_total_max) AS lmtp_rejected_total_max,
    (array_agg(lmtp_rejected_total_first ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL))[1] AS lmtp_rejected_total_first,
    min(lmtp_rejected_total_first_time) AS lmtp_rejected_total_first_time,
    (array_agg(lmtp_rejected_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL))[1] AS lmtp_rejected_total_last,
    max(lmtp_rejected_total_last_time) AS lmtp_rejected_total_last_time,
    sum(lmtp_rejected_total_fallen) + counter_fallen(
        array_agg(lmtp_rejected_total_first ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL),
        array_agg(lmtp_rejected_total_last ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL)
    ) AS lmtp_rejected_total_fallen,
    min(lmtp_error_total_min) AS lmtp_error_total_min,
    max(lmtp_error_total_max) AS lmtp_error_total_max,
    (array_agg(lmtp_error_total_first ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL))[1] AS lmtp_error_total_first,
    min(lmtp_error_total_first_time) AS lmtp_error_total_first_time,
    (array_agg(lmtp_error_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_error_total_last IS NOT NULL))[1] AS lmtp_error_total_last,
    max(lmtp_error_total_last_time) AS lmtp_error_total_last_time,
    sum(lmtp_error_total_fallen) + counter_fallen(
        array_agg(lmtp_error_total_first ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL),
        array_agg(lmtp_error_total_last ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL)
    ) AS lmtp_error_total_fallen
FROM metrics_wildduck_1h_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_wildduck_6h_1_key ON metrics_wildduck_6h_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_wildduck_6h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_wildduck_weekly_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('168 hours', bucket) AS bucket,
    node_id, instance, zone, started_at,
    sum(row_count)::bigint AS row_count,
    sum(user_count_sum) AS user_count_sum,
    sum(user_count_count)::bigint AS user_count_count,
    min(user_count_min) AS user_count_min,
    max(user_count_max) AS user_count_max,
    (array_agg(user_count_last ORDER BY bucket DESC) FILTER (WHERE user_count_last IS NOT NULL))[1] AS user_count_last,
    max(user_count_last_time) AS user_count_last_time,
    sum(storage_usage_sum) AS storage_usage_sum,
    sum(storage_usage_count)::bigint AS storage_usage_count,
    min(storage_usage_min) AS storage_usage_min,
    max(storage_usage_max) AS storage_usage_max,
    (array_agg(storage_usage_last ORDER BY bucket DESC) FILTER (WHERE storage_usage_last IS NOT NULL))[1] AS storage_usage_last,
    max(storage_usage_last_time) AS storage_usage_last_time,
    sum(storage_limit_sum) AS storage_limit_sum,
    sum(storage_limit_count)::bigint AS storage_limit_count,
    min(storage_limit_min) AS storage_limit_min,
    max(storage_limit_max) AS storage_limit_max,
    (array_agg(storage_limit_last ORDER BY bucket DESC) FILTER (WHERE storage_limit_last IS NOT NULL))[1] AS storage_limit_last,
    max(storage_limit_last_time) AS storage_limit_last_time,
    sum(over_quota_count_sum) AS over_quota_count_sum,
    sum(over_quota_count_count)::bigint AS over_quota_count_count,
    min(over_quota_count_min) AS over_quota_count_min,
    max(over_quota_count_max) AS over_quota_count_max,
    (array_agg(over_quota_count_last ORDER BY bucket DESC) FILTER (WHERE over_quota_count_last IS NOT NULL))[1] AS over_quota_count_last,
    max(over_quota_count_last_time) AS over_quota_count_last_time,
    sum(near_quota_count_sum) AS near_quota_count_sum,
    sum(near_quota_count_count)::bigint AS near_quota_count_count,
    min(near_quota_count_min) AS near_quota_count_min,
    max(near_quota_count_max) AS near_quota_count_max,
    (array_agg(near_quota_count_last ORDER BY bucket DESC) FILTER (WHERE near_quota_count_last IS NOT NULL))[1] AS near_quota_count_last,
    max(near_quota_count_last_time) AS near_quota_count_last_time,
    sum(mailbox_count_sum) AS mailbox_count_sum,
    sum(mailbox_count_count)::bigint AS mailbox_count_count,
    min(mailbox_count_min) AS mailbox_count_min,
    max(mailbox_count_max) AS mailbox_count_max,
    (array_agg(mailbox_count_last ORDER BY bucket DESC) FILTER (WHERE mailbox_count_last IS NOT NULL))[1] AS mailbox_count_last,
    max(mailbox_count_last_time) AS mailbox_count_last_time,
    sum(message_count_sum) AS message_count_sum,
    sum(message_count_count)::bigint AS message_count_count,
    min(message_count_min) AS message_count_min,
    max(message_count_max) AS message_count_max,
    (array_agg(message_count_last ORDER BY bucket DESC) FILTER (WHERE message_count_last IS NOT NULL))[1] AS message_count_last,
    max(message_count_last_time) AS message_count_last_time,
    sum(unseen_count_sum) AS unseen_count_sum,
    sum(unseen_count_count)::bigint AS unseen_count_count,
    min(unseen_count_min) AS unseen_count_min,
    max(unseen_count_max) AS unseen_count_max,
    (array_agg(unseen_count_last ORDER BY bucket DESC) FILTER (WHERE unseen_count_last IS NOT NULL))[1] AS unseen_count_last,
    max(unseen_count_last_time) AS unseen_count_last_time,
    sum(mailbox_size_sum) AS mailbox_size_sum,
    sum(mailbox_size_count)::bigint AS mailbox_size_count,
    min(mailbox_size_min) AS mailbox_size_min,
    max(mailbox_size_max) AS mailbox_size_max,
    (array_agg(mailbox_size_last ORDER BY bucket DESC) FILTER (WHERE mailbox_size_last IS NOT NULL))[1] AS mailbox_size_last,
    max(mailbox_size_last_time) AS mailbox_size_last_time,
    sum(imap_connections_sum) AS imap_connections_sum,
    sum(imap_connections_count)::bigint AS imap_connections_count,
    min(imap_connections_min) AS imap_connections_min,
    max(imap_connections_max) AS imap_connections_max,
    (array_agg(imap_connections_last ORDER BY bucket DESC) FILTER (WHERE imap_connections_last IS NOT NULL))[1] AS imap_connections_last,
    max(imap_connections_last_time) AS imap_connections_last_time,
    sum(pop3_connections_sum) AS pop3_connections_sum,
    sum(pop3_connections_count)::bigint AS pop3_connections_count,
    min(pop3_connections_min) AS pop3_connections_min,
    max(pop3_connections_max) AS pop3_connections_max,
    (array_agg(pop3_connections_last ORDER BY bucket DESC) FILTER (WHERE pop3_connections_last IS NOT NULL))[1] AS pop3_connections_last,
    max(pop3_connections_last_time) AS pop3_connections_last_time,
    min(lmtp_accepted_total_min) AS lmtp_accepted_total_min,
    max(lmtp_accepted_total_max) AS lmtp_accepted_total_max,
    (array_agg(lmtp_accepted_total_first ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL))[1] AS lmtp_accepted_total_first,
    min(lmtp_accepted_total_first_time) AS lmtp_accepted_total_first_time,
    (array_agg(lmtp_accepted_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL))[1] AS lmtp_accepted_total_last,
    max(lmtp_accepted_total_last_time) AS lmtp_accepted_total_last_time,
    sum(lmtp_accepted_total_fallen) + counter_fallen(
        array_agg(lmtp_accepted_total_first ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL),
        array_agg(lmtp_accepted_total_last ORDER BY bucket) FILTER (WHERE lmtp_accepted_total_last IS NOT NULL)
    ) AS lmtp_accepted_total_fallen,
    min(lmtp_rejected_total_min) AS lmtp_rejected_total_min,
    max(lmtp_rejected_total_max) AS lmtp_rejected_total_max,
    (array_agg(lmtp_rejected_total_first ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL))[1] AS lmtp_rejected_total_first,
    min(lmtp_rejected_total_first_time) AS lmtp_rejected_total_first_time,
    (array_agg(lmtp_rejected_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL))[1] AS lmtp_rejected_total_last,
    max(lmtp_rejected_total_last_time) AS lmtp_rejected_total_last_time,
    sum(lmtp_rejected_total_fallen) + counter_fallen(
        array_agg(lmtp_rejected_total_first ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL),
        array_agg(lmtp_rejected_total_last ORDER BY bucket) FILTER (WHERE lmtp_rejected_total_last IS NOT NULL)
    ) AS lmtp_rejected_total_fallen,
    min(lmtp_error_total_min) AS lmtp_error_total_min,
    max(lmtp_error_total_max) AS lmtp_error_total_max,
    (array_agg(lmtp_error_total_first ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL))[1] AS lmtp_error_total_first,
    min(lmtp_error_total_first_time) AS lmtp_error_total_first_time,
    (array_agg(lmtp_error_total_last ORDER BY bucket DESC) FILTER (WHERE lmtp_error_total_last IS NOT NULL))[1] AS lmtp_error_total_last,
    max(lmtp_error_total_last_time) AS lmtp_error_total_last_time,
    sum(lmtp_error_total_fallen) + counter_fallen(
        array_agg(lmtp_error_total_first ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL),
        array_agg(lmtp_error_total_last ORDER BY bucket) FILTER (WHERE lmtp_error_total_last IS NOT NULL)
    ) AS lmtp_error_total_fallen
FROM metrics_wildduck_daily_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_wildduck_weekly_1_key ON metrics_wildduck_weekly_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_wildduck_weekly_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

SELECT set_chunk_time_interval('metrics_wildduck_weekly_1', interval '70 days');

CREATE MATERIALIZED VIEW metrics_zonemta_15m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('15 minutes', bucket) AS bucket,
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
CREATE INDEX metrics_zonemta_15m_1_key ON metrics_zonemta_15m_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_zonemta_15m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_zonemta_6h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('6 hours', bucket) AS bucket,
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
CREATE INDEX metrics_zonemta_6h_1_key ON metrics_zonemta_6h_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_zonemta_6h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW metrics_zonemta_weekly_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('168 hours', bucket) AS bucket,
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
FROM metrics_zonemta_daily_1
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_zonemta_weekly_1_key ON metrics_zonemta_weekly_1 (node_id, instance, zone, bucket);

ALTER MATERIALIZED VIEW metrics_zonemta_weekly_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'bucket'
);

SELECT set_chunk_time_interval('metrics_zonemta_weekly_1', interval '70 days');
