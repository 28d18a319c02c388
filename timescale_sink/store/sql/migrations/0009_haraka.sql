-- The typed table of Haraka: one row an instance and time, made of its events by the agent's intake.

CREATE TABLE metrics_haraka (
    time timestamptz NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    zone text NOT NULL DEFAULT '',
    started_at timestamptz,
    inbound_total bigint,
    spam_count bigint,
    delivered_count bigint,
    bounce_count bigint,
    rejected_count bigint,
    deferred_count bigint,
    PRIMARY KEY (node_id, instance, zone, time)
);
CREATE INDEX metrics_haraka_time ON metrics_haraka (time);
