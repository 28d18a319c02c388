-- The typed table of WildDuck: one row an instance and time; its own page fills some columns, its API the others.

CREATE TABLE metrics_wildduck (
    time timestamptz NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    zone text NOT NULL DEFAULT '',
    started_at timestamptz,
    user_count bigint,
    storage_usage bigint,
    storage_limit bigint,
    over_quota_count bigint,
    near_quota_count bigint,
    mailbox_count bigint,
    message_count bigint,
    unseen_count bigint,
    mailbox_size bigint,
    imap_connections bigint,
    pop3_connections bigint,
    lmtp_accepted_total bigint,
    lmtp_rejected_total bigint,
    lmtp_error_total bigint,
    PRIMARY KEY (node_id, instance, zone, time)
);
CREATE INDEX metrics_wildduck_time ON metrics_wildduck (time);
