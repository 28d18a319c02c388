-- The queries of the API and the page, each after a line with its name; what {braces} hold are names of declared tables
-- and columns, and conditions made of them. In those of series times are epoch seconds and a bucket is a multiple of the
-- step; each answers (bucket, node_id, instance, zone, queue_id, seconds that the values cover, a value per column),
-- ordered so that one series stands together.

-- ping --
-- One row where the database answers and is migrated.
SELECT count(*) AS nodes FROM node;

-- nodes --
-- Every node ever seen, with the seconds since it was last heard of by the server's clock.
SELECT
    id, host, first_seen, last_seen, sources, versions, demo,
    extract(epoch FROM now() - last_seen)::float8 AS age
FROM node
ORDER BY demo, host, id;

-- gauges --
-- The mean of each gauge per bucket. A bucket without a row is a gap, and so is a column that is NULL.
SELECT
    extract(epoch FROM date_bin(make_interval(secs => %(step)s), time, 'epoch'))::bigint AS bucket,
    node_id, instance, zone, '' AS queue_id, %(step)s::float8 AS covered, {avg}
FROM {table}
WHERE
    time >= to_timestamp(%(start)s) AND time < to_timestamp(%(stop)s)
    AND (%(node)s::text IS NULL OR node_id = %(node)s)
    AND (%(instance)s::text IS NULL OR instance = %(instance)s)
    AND (%(zone)s::text IS NULL OR zone = %(zone)s)
GROUP BY 1, node_id, instance, zone
ORDER BY node_id, instance, zone, bucket;

-- queue_gauges --
-- As `gauges`, but one value per queue: every instance on a shared queue's database says the figure of the whole
-- queue, so the greatest of a tick stands for all of them and nothing is summed. A row that names no queue is its
-- instance's own.
SELECT
    extract(epoch FROM date_bin(make_interval(secs => %(step)s), time, 'epoch'))::bigint AS bucket,
    min(node_id) AS node_id, '' AS instance, zone, queue_id, %(step)s::float8 AS covered, {avg}
FROM (
    SELECT
        time, min(node_id) AS node_id, zone,
        coalesce(nullif(queue_id, ''), node_id || '/' || instance) AS queue_id, {max}
    FROM {table}
    WHERE
        time >= to_timestamp(%(start)s) AND time < to_timestamp(%(stop)s)
        AND (%(node)s::text IS NULL OR node_id = %(node)s)
        AND (%(instance)s::text IS NULL OR instance = %(instance)s)
        AND (%(zone)s::text IS NULL OR zone = %(zone)s)
    GROUP BY time, 4, zone
) AS tick
GROUP BY 1, queue_id, zone
ORDER BY queue_id, zone, bucket;

-- increases --
-- The increase of each counter per bucket, exact across restarts (the view tells how), and the seconds since the row
-- before the bucket's first, so that a rate over a gap, or in a bucket that is not over, is a rate. Where no row of the
-- instance came in the day before, nobody knows over which time the counter rose (NULL).
SELECT
    extract(epoch FROM date_bin(make_interval(secs => %(step)s), time, 'epoch'))::bigint AS bucket,
    node_id, instance, zone, '' AS queue_id,
    nullif(extract(epoch FROM sum(time - before)), 0)::float8 AS covered, {sum}
FROM (
    SELECT
        time, node_id, instance, zone, {columns},
        coalesce(
            lag(time) OVER (PARTITION BY node_id, instance, zone ORDER BY time),
            -- Asked for a key's first row of the range alone; a row of any zone, because a server tells a zone only
            -- once something was counted in it.
            (
                SELECT max(earlier.time) FROM {table} AS earlier
                WHERE
                    earlier.node_id = row.node_id AND earlier.instance = row.instance
                    AND earlier.time < row.time AND earlier.time >= row.time - interval '1 day'
            )
        ) AS before
    FROM {increase} AS row
    WHERE
        time >= to_timestamp(%(start)s) AND time < to_timestamp(%(stop)s)
        AND (%(node)s::text IS NULL OR node_id = %(node)s)
        AND (%(instance)s::text IS NULL OR instance = %(instance)s)
        AND (%(zone)s::text IS NULL OR zone = %(zone)s)
        -- A row of another receiver of the same source, which counts none of these, is no row before.
        AND num_nonnulls({columns}) > 0
) AS tick
GROUP BY 1, node_id, instance, zone
ORDER BY node_id, instance, zone, bucket;

-- snapshot_xmin --
-- The first transaction that may still be under way: all before it are over, and what they wrote is seen from now on.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text;

-- new_events --
-- What transactions from one on and before another wrote. Not of a time whose chunks are in columns, where no index
-- helps: what comes that late is found by searching.
SELECT time, event_id, node_id, instance, event_name, {columns}, attributes
FROM {table}
WHERE
    xact >= %(after)s::text::xid8 AND xact < %(until)s::text::xid8
    AND time >= now() - interval '8 days'
    AND {condition}
ORDER BY xact, time, event_id;

-- events --
-- The newest rows of an event table that meet the condition.
SELECT time, event_id, node_id, instance, event_name, {columns}, attributes
FROM {table}
WHERE
    {condition}
ORDER BY time DESC, event_id DESC
LIMIT %(limit)s;
