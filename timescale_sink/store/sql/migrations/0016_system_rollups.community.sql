-- On TimescaleDB Community: metrics_system in columns once it is old, and its rollups.

ALTER TABLE metrics_system SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id, instance, zone', timescaledb.orderby = 'time'
);

CREATE MATERIALIZED VIEW metrics_system_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', time) AS bucket,
    node_id, instance, zone, started_at,
    count(*) AS row_count,
    sum(cpu_load) AS cpu_load_sum,
    count(cpu_load) AS cpu_load_count,
    min(cpu_load) AS cpu_load_min,
    max(cpu_load) AS cpu_load_max,
    (array_agg(cpu_load ORDER BY time DESC) FILTER (WHERE cpu_load IS NOT NULL))[1] AS cpu_load_last,
    max(time) FILTER (WHERE cpu_load IS NOT NULL) AS cpu_load_last_time,
    sum(memory_percent) AS memory_percent_sum,
    count(memory_percent) AS memory_percent_count,
    min(memory_percent) AS memory_percent_min,
    max(memory_percent) AS memory_percent_max,
    (array_agg(memory_percent ORDER BY time DESC) FILTER (WHERE memory_percent IS NOT NULL))[1] AS memory_percent_last,
    max(time) FILTER (WHERE memory_percent IS NOT NULL) AS memory_percent_last_time,
    sum(memory_used) AS memory_used_sum,
    count(memory_used) AS memory_used_count,
    min(memory_used) AS memory_used_min,
    max(memory_used) AS memory_used_max,
    (array_agg(memory_used ORDER BY time DESC) FILTER (WHERE memory_used IS NOT NULL))[1] AS memory_used_last,
    max(time) FILTER (WHERE memory_used IS NOT NULL) AS memory_used_last_time,
    sum(disk_used) AS disk_used_sum,
    count(disk_used) AS disk_used_count,
    min(disk_used) AS disk_used_min,
    max(disk_used) AS disk_used_max,
    (array_agg(disk_used ORDER BY time DESC) FILTER (WHERE disk_used IS NOT NULL))[1] AS disk_used_last,
    max(time) FILTER (WHERE disk_used IS NOT NULL) AS disk_used_last_time,
    sum(disk_percent) AS disk_percent_sum,
    count(disk_percent) AS disk_percent_count,
    min(disk_percent) AS disk_percent_min,
    max(disk_percent) AS disk_percent_max,
    (array_agg(disk_percent ORDER BY time DESC) FILTER (WHERE disk_percent IS NOT NULL))[1] AS disk_percent_last,
    max(time) FILTER (WHERE disk_percent IS NOT NULL) AS disk_percent_last_time,
    min(network_in) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_in_min,
    max(network_in) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_in_max,
    (array_agg(network_in ORDER BY time) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS network_in_first,
    min(time) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_in_first_time,
    (array_agg(network_in ORDER BY time DESC) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS network_in_last,
    max(time) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_in_last_time,
    counter_fallen(
        array_agg(network_in ORDER BY time) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(network_in ORDER BY time) FILTER (WHERE network_in IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS network_in_fallen,
    min(network_out) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_out_min,
    max(network_out) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_out_max,
    (array_agg(network_out ORDER BY time) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS network_out_first,
    min(time) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_out_first_time,
    (array_agg(network_out ORDER BY time DESC) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE))[1] AS network_out_last,
    max(time) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE) AS network_out_last_time,
    counter_fallen(
        array_agg(network_out ORDER BY time) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE),
        array_agg(network_out ORDER BY time) FILTER (WHERE network_out IS NOT NULL AND (time >= started_at) IS NOT FALSE)
    ) AS network_out_fallen,
    sum(load_1m) AS load_1m_sum,
    count(load_1m) AS load_1m_count,
    min(load_1m) AS load_1m_min,
    max(load_1m) AS load_1m_max,
    (array_agg(load_1m ORDER BY time DESC) FILTER (WHERE load_1m IS NOT NULL))[1] AS load_1m_last,
    max(time) FILTER (WHERE load_1m IS NOT NULL) AS load_1m_last_time,
    sum(process_count) AS process_count_sum,
    count(process_count) AS process_count_count,
    min(process_count) AS process_count_min,
    max(process_count) AS process_count_max,
    (array_agg(process_count ORDER BY time DESC) FILTER (WHERE process_count IS NOT NULL))[1] AS process_count_last,
    max(time) FILTER (WHERE process_count IS NOT NULL) AS process_count_last_time
FROM metrics_system
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE INDEX metrics_system_5m_1_key ON metrics_system_5m_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_system_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
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
CREATE INDEX metrics_system_1h_1_key ON metrics_system_1h_1 (node_id, instance, zone, bucket);

CREATE MATERIALIZED VIEW metrics_system_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
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
CREATE INDEX metrics_system_daily_1_key ON metrics_system_daily_1 (node_id, instance, zone, bucket);
