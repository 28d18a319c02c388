-- On TimescaleDB Community: the domains with most attempts to deliver in each hour and day, and how many.
--
-- By domain a month has a million buckets. Of these lists the few names follow among which those of a longer time are.

CREATE MATERIALIZED VIEW delivery_events_leaders_1h_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('1 hour', bucket) AS bucket,
    leading_names(array_agg(domain), array_agg(attempts), 500) AS names,
    leading_counts(array_agg(domain), array_agg(attempts), 500) AS counts
FROM delivery_events_domains_1h_1
GROUP BY 1
WITH NO DATA;

ALTER MATERIALIZED VIEW delivery_events_leaders_1h_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW delivery_events_leaders_daily_1 WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('24 hours', bucket) AS bucket,
    leading_names(array_agg(domain), array_agg(attempts), 500) AS names,
    leading_counts(array_agg(domain), array_agg(attempts), 500) AS counts
FROM delivery_events_domains_daily_1
GROUP BY 1
WITH NO DATA;

ALTER MATERIALIZED VIEW delivery_events_leaders_daily_1 SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'bucket'
);
