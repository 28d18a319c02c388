-- On TimescaleDB Community: the rollups of the event tables whatever the domain and the node.
--
-- By node a month has as many hours of each node as there are: 100 times as many rows as what all of them did.

CREATE MATERIALIZED VIEW delivery_events_totals_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', bucket) AS bucket,
    zone,
    status,
    category,
    sum(attempts)::bigint AS attempts,
    sum(first_attempts)::bigint AS first_attempts,
    sum(duration_sum) AS duration_sum,
    sum(duration_count)::bigint AS duration_count,
    min(duration_min) AS duration_min,
    max(duration_max) AS duration_max
FROM delivery_events_nodes_5m_1
GROUP BY 1, 2, 3, 4
WITH NO DATA;

ALTER MATERIALIZED VIEW delivery_events_totals_5m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW delivery_events_totals_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    zone,
    status,
    category,
    sum(attempts)::bigint AS attempts,
    sum(first_attempts)::bigint AS first_attempts,
    sum(duration_sum) AS duration_sum,
    sum(duration_count)::bigint AS duration_count,
    min(duration_min) AS duration_min,
    max(duration_max) AS duration_max
FROM delivery_events_nodes_1h_1
GROUP BY 1, 2, 3, 4
WITH NO DATA;

ALTER MATERIALIZED VIEW delivery_events_totals_1h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW delivery_events_totals_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    zone,
    status,
    category,
    sum(attempts)::bigint AS attempts,
    sum(first_attempts)::bigint AS first_attempts,
    sum(duration_sum) AS duration_sum,
    sum(duration_count)::bigint AS duration_count,
    min(duration_min) AS duration_min,
    max(duration_max) AS duration_max
FROM delivery_events_nodes_daily_1
GROUP BY 1, 2, 3, 4
WITH NO DATA;

ALTER MATERIALIZED VIEW delivery_events_totals_daily_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW email_events_totals_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', bucket) AS bucket,
    direction,
    outcome,
    spam_action,
    sum(messages)::bigint AS messages,
    sum(size_bytes_sum) AS size_bytes_sum,
    sum(size_bytes_count)::bigint AS size_bytes_count,
    min(size_bytes_min) AS size_bytes_min,
    max(size_bytes_max) AS size_bytes_max,
    sum(recipients_accepted_sum) AS recipients_accepted_sum,
    sum(recipients_accepted_count)::bigint AS recipients_accepted_count,
    min(recipients_accepted_min) AS recipients_accepted_min,
    max(recipients_accepted_max) AS recipients_accepted_max,
    sum(recipients_refused_sum) AS recipients_refused_sum,
    sum(recipients_refused_count)::bigint AS recipients_refused_count,
    min(recipients_refused_min) AS recipients_refused_min,
    max(recipients_refused_max) AS recipients_refused_max,
    sum(spam_score_sum) AS spam_score_sum,
    sum(spam_score_count)::bigint AS spam_score_count,
    min(spam_score_min) AS spam_score_min,
    max(spam_score_max) AS spam_score_max
FROM email_events_nodes_5m_1
GROUP BY 1, 2, 3, 4
WITH NO DATA;

ALTER MATERIALIZED VIEW email_events_totals_5m_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW email_events_totals_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    direction,
    outcome,
    spam_action,
    sum(messages)::bigint AS messages,
    sum(size_bytes_sum) AS size_bytes_sum,
    sum(size_bytes_count)::bigint AS size_bytes_count,
    min(size_bytes_min) AS size_bytes_min,
    max(size_bytes_max) AS size_bytes_max,
    sum(recipients_accepted_sum) AS recipients_accepted_sum,
    sum(recipients_accepted_count)::bigint AS recipients_accepted_count,
    min(recipients_accepted_min) AS recipients_accepted_min,
    max(recipients_accepted_max) AS recipients_accepted_max,
    sum(recipients_refused_sum) AS recipients_refused_sum,
    sum(recipients_refused_count)::bigint AS recipients_refused_count,
    min(recipients_refused_min) AS recipients_refused_min,
    max(recipients_refused_max) AS recipients_refused_max,
    sum(spam_score_sum) AS spam_score_sum,
    sum(spam_score_count)::bigint AS spam_score_count,
    min(spam_score_min) AS spam_score_min,
    max(spam_score_max) AS spam_score_max
FROM email_events_nodes_1h_1
GROUP BY 1, 2, 3, 4
WITH NO DATA;

ALTER MATERIALIZED VIEW email_events_totals_1h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW email_events_totals_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    direction,
    outcome,
    spam_action,
    sum(messages)::bigint AS messages,
    sum(size_bytes_sum) AS size_bytes_sum,
    sum(size_bytes_count)::bigint AS size_bytes_count,
    min(size_bytes_min) AS size_bytes_min,
    max(size_bytes_max) AS size_bytes_max,
    sum(recipients_accepted_sum) AS recipients_accepted_sum,
    sum(recipients_accepted_count)::bigint AS recipients_accepted_count,
    min(recipients_accepted_min) AS recipients_accepted_min,
    max(recipients_accepted_max) AS recipients_accepted_max,
    sum(recipients_refused_sum) AS recipients_refused_sum,
    sum(recipients_refused_count)::bigint AS recipients_refused_count,
    min(recipients_refused_min) AS recipients_refused_min,
    max(recipients_refused_max) AS recipients_refused_max,
    sum(spam_score_sum) AS spam_score_sum,
    sum(spam_score_count)::bigint AS spam_score_count,
    min(spam_score_min) AS spam_score_min,
    max(spam_score_max) AS spam_score_max
FROM email_events_nodes_daily_1
GROUP BY 1, 2, 3, 4
WITH NO DATA;

ALTER MATERIALIZED VIEW email_events_totals_daily_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);
