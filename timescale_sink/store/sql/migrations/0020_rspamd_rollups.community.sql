-- On TimescaleDB Community: metrics_rspamd in columns once it is old, and its rollups.

ALTER TABLE metrics_rspamd SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'time'
);

CREATE MATERIALIZED VIEW metrics_rspamd_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', time) AS bucket,
    node_id, instance, zone, started_at,
    count(*) AS row_count,
    min(scanned_total) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS scanned_total_min,
    max(scanned_total) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS scanned_total_max,
    (array_agg(scanned_total ORDER BY time) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS scanned_total_first,
    min(time) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS scanned_total_first_time,
    (array_agg(scanned_total ORDER BY time DESC) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS scanned_total_last,
    max(time) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS scanned_total_last_time,
    counter_fallen(
        array_agg(scanned_total ORDER BY time) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(scanned_total ORDER BY time) FILTER (WHERE scanned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS scanned_total_fallen,
    min(reject_total) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS reject_total_min,
    max(reject_total) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS reject_total_max,
    (array_agg(reject_total ORDER BY time) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS reject_total_first,
    min(time) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS reject_total_first_time,
    (array_agg(reject_total ORDER BY time DESC) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS reject_total_last,
    max(time) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS reject_total_last_time,
    counter_fallen(
        array_agg(reject_total ORDER BY time) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(reject_total ORDER BY time) FILTER (WHERE reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS reject_total_fallen,
    min(soft_reject_total) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS soft_reject_total_min,
    max(soft_reject_total) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS soft_reject_total_max,
    (array_agg(soft_reject_total ORDER BY time) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS soft_reject_total_first,
    min(time) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS soft_reject_total_first_time,
    (array_agg(soft_reject_total ORDER BY time DESC) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS soft_reject_total_last,
    max(time) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS soft_reject_total_last_time,
    counter_fallen(
        array_agg(soft_reject_total ORDER BY time) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(soft_reject_total ORDER BY time) FILTER (WHERE soft_reject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS soft_reject_total_fallen,
    min(rewrite_subject_total) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rewrite_subject_total_min,
    max(rewrite_subject_total) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rewrite_subject_total_max,
    (array_agg(rewrite_subject_total ORDER BY time) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS rewrite_subject_total_first,
    min(time) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rewrite_subject_total_first_time,
    (array_agg(rewrite_subject_total ORDER BY time DESC) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS rewrite_subject_total_last,
    max(time) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS rewrite_subject_total_last_time,
    counter_fallen(
        array_agg(rewrite_subject_total ORDER BY time) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(rewrite_subject_total ORDER BY time) FILTER (WHERE rewrite_subject_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS rewrite_subject_total_fallen,
    min(add_header_total) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS add_header_total_min,
    max(add_header_total) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS add_header_total_max,
    (array_agg(add_header_total ORDER BY time) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS add_header_total_first,
    min(time) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS add_header_total_first_time,
    (array_agg(add_header_total ORDER BY time DESC) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS add_header_total_last,
    max(time) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS add_header_total_last_time,
    counter_fallen(
        array_agg(add_header_total ORDER BY time) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(add_header_total ORDER BY time) FILTER (WHERE add_header_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS add_header_total_fallen,
    min(greylist_total) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS greylist_total_min,
    max(greylist_total) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS greylist_total_max,
    (array_agg(greylist_total ORDER BY time) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS greylist_total_first,
    min(time) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS greylist_total_first_time,
    (array_agg(greylist_total ORDER BY time DESC) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS greylist_total_last,
    max(time) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS greylist_total_last_time,
    counter_fallen(
        array_agg(greylist_total ORDER BY time) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(greylist_total ORDER BY time) FILTER (WHERE greylist_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS greylist_total_fallen,
    min(no_action_total) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS no_action_total_min,
    max(no_action_total) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS no_action_total_max,
    (array_agg(no_action_total ORDER BY time) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS no_action_total_first,
    min(time) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS no_action_total_first_time,
    (array_agg(no_action_total ORDER BY time DESC) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS no_action_total_last,
    max(time) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS no_action_total_last_time,
    counter_fallen(
        array_agg(no_action_total ORDER BY time) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(no_action_total ORDER BY time) FILTER (WHERE no_action_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS no_action_total_fallen,
    min(learned_total) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS learned_total_min,
    max(learned_total) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS learned_total_max,
    (array_agg(learned_total ORDER BY time) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS learned_total_first,
    min(time) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS learned_total_first_time,
    (array_agg(learned_total ORDER BY time DESC) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS learned_total_last,
    max(time) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS learned_total_last_time,
    counter_fallen(
        array_agg(learned_total ORDER BY time) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(learned_total ORDER BY time) FILTER (WHERE learned_total IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS learned_total_fallen,
    sum(scan_duration) AS scan_duration_sum,
    count(scan_duration) AS scan_duration_count,
    min(scan_duration) AS scan_duration_min,
    max(scan_duration) AS scan_duration_max,
    (array_agg(scan_duration ORDER BY time DESC) FILTER (WHERE scan_duration IS NOT NULL))[1] AS scan_duration_last,
    max(time) FILTER (WHERE scan_duration IS NOT NULL) AS scan_duration_last_time
FROM metrics_rspamd
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_rspamd_5m_1_key ON metrics_rspamd_5m_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_rspamd_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
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
CREATE INDEX metrics_rspamd_1h_1_key ON metrics_rspamd_1h_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_rspamd_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
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
CREATE INDEX metrics_rspamd_daily_1_key ON metrics_rspamd_daily_1 (node_id, instance, zone, bucket);
