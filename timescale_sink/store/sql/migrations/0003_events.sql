-- The tables of mail events: what became of each message, and of each attempt to deliver one.
--
-- `xact` is the transaction that wrote a row: a reader takes those below pg_snapshot_xmin(pg_current_snapshot()), so that
-- none is passed over that commits after a later one.

CREATE TABLE email_events (
    time timestamptz NOT NULL,
    event_id uuid NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    event_name text NOT NULL,
    direction text,
    outcome text,
    message_id text,
    queue_id text,
    from_user text,
    from_domain text,
    to_domain text,
    to_domains text[],
    mta_node text,
    client_ip text,
    tls text,
    size_bytes bigint,
    recipients_accepted bigint,
    recipients_refused bigint,
    spam_score double precision,
    spam_action text,
    symbols jsonb,
    storage_status text,
    attributes jsonb NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (event_id, time)
);
CREATE INDEX email_events_time ON email_events (time);
CREATE INDEX email_events_message ON email_events (message_id);
CREATE INDEX email_events_queue ON email_events (queue_id);
CREATE INDEX email_events_xact ON email_events (xact);

CREATE TABLE delivery_events (
    time timestamptz NOT NULL,
    event_id uuid NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    event_name text NOT NULL,
    status text,
    message_id text,
    queue_id text,
    zone text,
    category text,
    smtp_code bigint,
    enhanced_code text,
    response text,
    mx text,
    mx_ip text,
    source_ip text,
    attempt bigint,
    duration double precision,
    to_domain text,
    attributes jsonb NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (event_id, time)
);
CREATE INDEX delivery_events_time ON delivery_events (time);
CREATE INDEX delivery_events_message ON delivery_events (message_id);
CREATE INDEX delivery_events_queue ON delivery_events (queue_id);
CREATE INDEX delivery_events_xact ON delivery_events (xact);
