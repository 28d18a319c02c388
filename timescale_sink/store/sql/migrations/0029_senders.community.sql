-- On TimescaleDB Community: how much each sender sends by the hour, for the alert rule sender-volume.
--
-- Of hours alone, made of the events: of five minutes it would have nearly as many rows as there are messages.

CREATE MATERIALIZED VIEW email_events_senders_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', time) AS bucket,
    node_id,
    instance,
    coalesce(attributes ->> 'user.name', coalesce(from_user || '@', '') || from_domain) AS sender,
    count(*) AS messages,
    sum(
        CASE WHEN jsonb_typeof(attributes -> 'email.to.address') = 'array'
            THEN jsonb_array_length(attributes -> 'email.to.address') ELSE 1 END
    ) AS recipients
FROM email_events
WHERE direction = 'outbound' AND outcome IN ('queued', 'accepted')
GROUP BY 1, 2, 3, 4
WITH NO DATA;
CREATE INDEX email_events_senders_1h_1_key ON email_events_senders_1h_1 (sender, bucket);

ALTER MATERIALIZED VIEW email_events_senders_1h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'sender, bucket'
);
