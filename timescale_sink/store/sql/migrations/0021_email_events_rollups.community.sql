-- On TimescaleDB Community: email_events in columns once it is old, and its rollups.

ALTER TABLE email_events SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'node_id', timescaledb.orderby = 'time, event_id'
);

CREATE MATERIALIZED VIEW email_events_5m_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('5 minutes', time) AS bucket,
    node_id,
    instance,
    direction,
    CASE WHEN direction = 'outbound' THEN to_domain ELSE from_domain END AS domain,
    outcome,
    spam_action,
    count(*) AS messages,
    sum(size_bytes) AS size_bytes_sum,
    count(size_bytes) AS size_bytes_count,
    min(size_bytes) AS size_bytes_min,
    max(size_bytes) AS size_bytes_max,
    sum(recipients_accepted) AS recipients_accepted_sum,
    count(recipients_accepted) AS recipients_accepted_count,
    min(recipients_accepted) AS recipients_accepted_min,
    max(recipients_accepted) AS recipients_accepted_max,
    sum(recipients_refused) AS recipients_refused_sum,
    count(recipients_refused) AS recipients_refused_count,
    min(recipients_refused) AS recipients_refused_min,
    max(recipients_refused) AS recipients_refused_max,
    sum(spam_score) AS spam_score_sum,
    count(spam_score) AS spam_score_count,
    min(spam_score) AS spam_score_min,
    max(spam_score) AS spam_score_max
FROM email_events
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;
CREATE INDEX email_events_5m_1_key ON email_events_5m_1 (domain, bucket);

CREATE MATERIALIZED VIEW email_events_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    node_id,
    instance,
    direction,
    domain,
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
FROM email_events_5m_1
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;
CREATE INDEX email_events_1h_1_key ON email_events_1h_1 (domain, bucket);

CREATE MATERIALIZED VIEW email_events_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    node_id,
    instance,
    direction,
    domain,
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
FROM email_events_1h_1
GROUP BY 1, 2, 3, 4, 5, 6, 7
WITH NO DATA;
CREATE INDEX email_events_daily_1_key ON email_events_daily_1 (domain, bucket);
