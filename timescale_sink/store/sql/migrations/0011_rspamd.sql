-- The typed table of Rspamd: one row an instance and time, of its /stat.

CREATE TABLE metrics_rspamd (
    time timestamptz NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    zone text NOT NULL DEFAULT '',
    started_at timestamptz,
    scanned_total bigint,
    reject_total bigint,
    soft_reject_total bigint,
    rewrite_subject_total bigint,
    add_header_total bigint,
    greylist_total bigint,
    no_action_total bigint,
    learned_total bigint,
    scan_duration double precision,
    PRIMARY KEY (node_id, instance, zone, time)
);
CREATE INDEX metrics_rspamd_time ON metrics_rspamd (time);
