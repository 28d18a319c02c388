-- The tables of metrics, logs, nodes, and the proof that nothing was lost.
--
-- Typed tables have one row for each (time, node_id, instance, zone); a column is fed by exactly one data point, named in
-- the sources' metadata.yaml. The key begins with what stays the same from row to row, so that the row before a row is
-- its neighbour in the index; `time` has an index of its own for the queries that begin with it.

CREATE TABLE node (
    id text PRIMARY KEY,
    host text NOT NULL DEFAULT '',
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    sources jsonb NOT NULL DEFAULT '[]',
    versions jsonb NOT NULL DEFAULT '{}',
    demo boolean NOT NULL DEFAULT false,
    attributes jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE node IS 'Hosts that have sent anything: host.id of the resource';

CREATE TABLE metrics_system (
    time timestamptz NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    zone text NOT NULL DEFAULT '',
    started_at timestamptz,
    cpu_load double precision,
    memory_percent double precision,
    memory_used bigint,
    disk_used bigint,
    disk_percent double precision,
    network_in bigint,
    network_out bigint,
    load_1m double precision,
    process_count bigint,
    PRIMARY KEY (node_id, instance, zone, time)
);
CREATE INDEX metrics_system_time ON metrics_system (time);

CREATE TABLE metrics_zonemta (
    time timestamptz NOT NULL,
    node_id text NOT NULL,
    instance text NOT NULL,
    zone text NOT NULL DEFAULT '',
    started_at timestamptz,
    queue_id text,
    queue_size bigint,
    deferred_size bigint,
    oldest_age double precision,
    delivered_total bigint,
    rejected_total bigint,
    deferred_total bigint,
    unknown_total bigint,
    PRIMARY KEY (node_id, instance, zone, time)
);
CREATE INDEX metrics_zonemta_time ON metrics_zonemta (time);

CREATE TABLE otel_series (
    series_id uuid PRIMARY KEY,
    first_seen timestamptz NOT NULL DEFAULT now(),
    node_id text NOT NULL,
    instance text NOT NULL,
    metric text NOT NULL,
    unit text NOT NULL,
    kind text NOT NULL,
    temporality text NOT NULL,
    monotonic boolean NOT NULL,
    description text NOT NULL,
    resource jsonb NOT NULL,
    scope jsonb NOT NULL,
    attributes jsonb NOT NULL
);
CREATE INDEX otel_series_metric ON otel_series (metric, node_id);
COMMENT ON TABLE otel_series IS 'What the points of otel_metric_point belong to; series_id is a 128-bit hash of all it says';

CREATE TABLE otel_metric_point (
    time timestamptz NOT NULL,
    series_id uuid NOT NULL,
    started_at timestamptz,
    flags bigint NOT NULL DEFAULT 0,
    value double precision,
    value_int bigint,
    count numeric(20),
    sum double precision,
    min double precision,
    max double precision,
    bounds double precision[],
    bucket_counts numeric(20)[],
    detail jsonb,
    exemplars jsonb,
    PRIMARY KEY (series_id, time)
);
CREATE INDEX otel_metric_point_time ON otel_metric_point (time);
COMMENT ON TABLE otel_metric_point IS 'Points of every metric without a typed column, all five OTLP kinds';
COMMENT ON COLUMN otel_metric_point.value IS 'Of a number point; value_int holds it too, exactly, where it came as an integer';
COMMENT ON COLUMN otel_metric_point.detail IS 'Of an exponential histogram: scale, zero count, buckets; of a summary: quantiles';

CREATE TABLE otel_log (
    time timestamptz NOT NULL,
    event_id uuid NOT NULL,
    observed_time timestamptz,
    node_id text NOT NULL,
    instance text NOT NULL,
    event_name text NOT NULL,
    severity_number smallint NOT NULL,
    severity_text text NOT NULL,
    body jsonb,
    trace_id bytea,
    span_id bytea,
    flags bigint NOT NULL DEFAULT 0,
    resource jsonb NOT NULL,
    scope jsonb NOT NULL,
    attributes jsonb NOT NULL,
    PRIMARY KEY (event_id, time)
);
CREATE INDEX otel_log_time ON otel_log (time);
CREATE INDEX otel_log_event ON otel_log (event_name, time);

CREATE TABLE dead_letter (
    record_id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    hour timestamptz NOT NULL,
    destination text NOT NULL,
    reason text NOT NULL,
    resource_id uuid,
    scope_id uuid,
    metric_id uuid,
    record jsonb NOT NULL
);
CREATE INDEX dead_letter_received ON dead_letter (received_at);
COMMENT ON TABLE dead_letter IS 'Records that could not be stored, each with its reason; record_id is a hash of all it says';
COMMENT ON COLUMN dead_letter.record IS 'The point or log record as OTLP JSON; of what the database refused, the row that it became';

CREATE TABLE dead_letter_part (
    part_id uuid PRIMARY KEY,
    content jsonb NOT NULL
);
COMMENT ON TABLE dead_letter_part IS 'What stands above dead letters, once each, as OTLP JSON: resources, scopes, metrics without their points';

CREATE TABLE ingest_ledger (
    hour timestamptz NOT NULL,
    destination text NOT NULL,
    sink text NOT NULL,
    received bigint NOT NULL DEFAULT 0,
    stored bigint NOT NULL DEFAULT 0,
    duplicate bigint NOT NULL DEFAULT 0,
    conflicting bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    removed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, destination, sink),
    CHECK (received = stored + duplicate + dead_lettered)
);
COMMENT ON TABLE ingest_ledger IS 'Points and records by the hour of their own time (UTC): what came, and what became of it';
COMMENT ON COLUMN ingest_ledger.conflicting IS 'Of the duplicates, those whose value differed from the stored one, which stayed';
COMMENT ON COLUMN ingest_ledger.removed IS 'Of the stored, those that a command deleted since';
COMMENT ON COLUMN ingest_ledger.sink IS 'The sink that wrote the row: two sinks never wait for each other''s row';
