-- The queries of the API and the page, each after a line with its name; what {braces} hold are names of declared tables
-- and columns, and conditions made of them. In those of series times are epoch seconds and a bucket is so many steps from
-- the origin; each answers (step, node_id, instance, zone, queue_id, seconds that the values cover, a value per column), in no
-- order: sorting by names costs more than all else.

-- ping --
-- One row where the database answers and is migrated: who answers, and how old the newest transaction of a replica is, by
-- its clock; NULL where it has replayed none (greatest() passes over a NULL).
SELECT
    (SELECT count(*) FROM node) AS nodes, pg_is_in_recovery() AS replica,
    CASE WHEN pg_is_in_recovery() AND pg_last_xact_replay_timestamp() IS NOT NULL THEN
        greatest(0, extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()))::float8
    END AS age;

-- nodes --
-- Every node of which something is kept, with the seconds since it was last heard of by the server's clock.
SELECT
    id, host, first_seen, last_seen, sources, versions, demo,
    extract(epoch FROM now() - last_seen)::float8 AS age
FROM node
ORDER BY demo, host, id;

-- series --
-- Which series a table has: what told something within the last so many seconds of it.
SELECT DISTINCT node_id, instance, zone
FROM {table}
WHERE time > least((SELECT max(time) FROM {table}), now()) - make_interval(secs => %(seconds)s);

-- pending --
-- Rollups that are still being made of others.
SELECT relation FROM retention WHERE pending AND relation = ANY (%(rollups)s);

-- gauges --
-- The mean of each gauge per bucket. A bucket without a row is a gap, and so is a column that is NULL.
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), time, {origin}))::bigint AS step,
    node_id, instance, zone, '' AS queue_id, %(step)s::float8 AS covered, {avg}
FROM {table}
WHERE
    time >= to_timestamp(%(start)s) AND time < to_timestamp(%(stop)s)
    AND (%(node)s::text IS NULL OR node_id = %(node)s)
    AND (%(instance)s::text IS NULL OR instance = %(instance)s)
    AND (%(zone)s::text IS NULL OR zone = %(zone)s)
GROUP BY date_bin(make_interval(secs => %(step)s), time, {origin}), node_id, instance, zone;

-- queue_gauges --
-- As `gauges`, but one value per queue: every instance on a shared queue's database says the figure of the whole
-- queue, so the greatest of a tick stands for all of them and nothing is summed. A row that names no queue is its
-- instance's own.
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), time, {origin}))::bigint AS step,
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
GROUP BY date_bin(make_interval(secs => %(step)s), time, {origin}), queue_id, zone;

-- rolled_gauges --
-- As `gauges`, of the buckets of a rollup, whose length divides the step.
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), bucket, {origin}))::bigint AS step,
    node_id, instance, zone, '' AS queue_id, %(step)s::float8 AS covered, {mean}
FROM {table}
WHERE
    bucket >= to_timestamp(%(start)s) AND bucket < to_timestamp(%(stop)s)
    AND (%(node)s::text IS NULL OR node_id = %(node)s)
    AND (%(instance)s::text IS NULL OR instance = %(instance)s)
    AND (%(zone)s::text IS NULL OR zone = %(zone)s)
GROUP BY date_bin(make_interval(secs => %(step)s), bucket, {origin}), node_id, instance, zone;

-- rolled_queue_gauges --
-- As `queue_gauges`, of the buckets of a rollup, in which a restart makes two states of an instance: the greatest of the
-- instances' means stands for the queue.
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), bucket, {origin}))::bigint AS step,
    min(node_id) AS node_id, '' AS instance, zone, queue_id, %(step)s::float8 AS covered, {avg}
FROM (
    SELECT
        bucket, min(node_id) AS node_id, zone,
        coalesce(nullif(queue_id, ''), node_id || '/' || instance) AS queue_id, {max}
    FROM (
        SELECT bucket, node_id, instance, zone, max(queue_id) AS queue_id, {mean}
        FROM {table}
        WHERE
            bucket >= to_timestamp(%(start)s) AND bucket < to_timestamp(%(stop)s)
            AND (%(node)s::text IS NULL OR node_id = %(node)s)
            AND (%(instance)s::text IS NULL OR instance = %(instance)s)
            AND (%(zone)s::text IS NULL OR zone = %(zone)s)
        GROUP BY bucket, node_id, instance, zone
    ) AS state
    GROUP BY bucket, 4, zone
) AS tick
GROUP BY date_bin(make_interval(secs => %(step)s), bucket, {origin}), queue_id, zone;

-- increases --
-- The increase of each counter per bucket, exact across restarts, and the seconds since the row before the bucket's first,
-- so that a rate over a gap, or in a bucket that is not over, is a rate. Where no row of the instance came in the day
-- before, nobody knows over which time the counter rose (NULL).
--
-- What a row rose by is told by the row before it, from `since` on, which is earlier than the start. A last column says
-- whether that was enough for all of the bucket's; where not, `exact_increases` is to be asked.
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), time, {origin}))::bigint AS step,
    node_id, instance, zone, '' AS queue_id, nullif(date_part('epoch', sum(time - before)), 0)::float8 AS covered,
    {rises}, bool_or({unknown} OR before IS NULL) AS unknown
FROM (
    SELECT time, node_id, instance, zone, started_at, {columns}, {befores}
    FROM {table}
    WHERE
        time >= to_timestamp(%(since)s) AND time < to_timestamp(%(stop)s)
        AND (%(node)s::text IS NULL OR node_id = %(node)s)
        AND (%(instance)s::text IS NULL OR instance = %(instance)s)
        AND (%(zone)s::text IS NULL OR zone = %(zone)s)
        -- A row of another receiver of the same source, which counts none of these, is no row before.
        AND num_nonnulls({columns}) > 0
    WINDOW key AS (PARTITION BY {key} ORDER BY time)
) AS near
WHERE time >= to_timestamp(%(start)s)
GROUP BY date_bin(make_interval(secs => %(step)s), time, {origin}), node_id, instance, zone;

-- exact_increases --
-- The same without the last column, by the view, which looks for a predecessor as far as it takes.
WITH near AS MATERIALIZED (
    SELECT time, node_id, instance, zone, started_at, {columns}, {befores}
    FROM {table}
    WHERE
        time >= to_timestamp(%(since)s) AND time < to_timestamp(%(stop)s)
        AND (%(node)s::text IS NULL OR node_id = %(node)s)
        AND (%(instance)s::text IS NULL OR instance = %(instance)s)
        AND (%(zone)s::text IS NULL OR zone = %(zone)s)
        AND num_nonnulls({columns}) > 0
    WINDOW key AS (PARTITION BY {key} ORDER BY time)
)
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), near.time, {origin}))::bigint AS step,
    near.node_id, near.instance, near.zone, '' AS queue_id,
    nullif(date_part('epoch', sum(near.time - coalesce(
        near.before,
        -- Of any zone, because a server tells a zone only once something was counted in it.
        (
            SELECT max(earlier.time) FROM {table} AS earlier
            WHERE
                earlier.node_id = near.node_id AND earlier.instance = near.instance
                AND earlier.time < near.time AND earlier.time >= near.time - interval '1 day'
        )
    ))), 0)::float8 AS covered,
    {rises}
FROM near
LEFT JOIN LATERAL (
    SELECT {columns} FROM {increase} AS whole
    WHERE
        ({unknown}) AND whole.time = near.time AND whole.node_id = near.node_id
        AND whole.instance = near.instance AND whole.zone = near.zone
    -- Or it would be joined for all rows first.
    LIMIT 1
) AS whole ON true
WHERE near.time >= to_timestamp(%(start)s)
GROUP BY date_bin(make_interval(secs => %(step)s), near.time, {origin}), near.node_id, near.instance, near.zone;

-- rolled_increases --
-- As `increases`, of the buckets of a rollup. What is in the oldest bucket that the rollup has is known to have nothing
-- before it: the range of all that is kept begins with it.
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), bucket, {origin}))::bigint AS step,
    node_id, instance, zone, '' AS queue_id, nullif(date_part('epoch', sum(
        last_time - CASE WHEN oldest THEN first_time ELSE before END
    )), 0)::float8 AS covered,
    {rises}, bool_or(({unknown} OR before IS NULL) AND NOT oldest) AS unknown
FROM (
    SELECT
        bucket, node_id, instance, zone, started_at, {states}, greatest({last_times}) AS last_time,
        least({first_times}) AS first_time, {befores},
        -- Each asked once at most, and the second at the edge alone.
        lag(bucket) OVER key IS NULL
        AND NOT EXISTS (SELECT FROM {table} AS older WHERE older.bucket < to_timestamp(%(since)s))
        AND bucket = (
            SELECT min(older.bucket) FROM {table} AS older
            WHERE older.bucket >= to_timestamp(%(since)s) AND older.bucket < to_timestamp(%(stop)s)
        ) AS oldest
    FROM {table}
    WHERE
        bucket >= to_timestamp(%(since)s) AND bucket < to_timestamp(%(stop)s)
        AND (%(node)s::text IS NULL OR node_id = %(node)s)
        AND (%(instance)s::text IS NULL OR instance = %(instance)s)
        AND (%(zone)s::text IS NULL OR zone = %(zone)s)
        AND num_nonnulls({last_times}) > 0
    WINDOW key AS (PARTITION BY {key} ORDER BY bucket, started_at)
) AS near
WHERE bucket >= to_timestamp(%(start)s)
GROUP BY date_bin(make_interval(secs => %(step)s), bucket, {origin}), node_id, instance, zone;

-- exact_rolled_increases --
-- As `exact_increases`, of the buckets of a rollup.
WITH near AS MATERIALIZED (
    SELECT
        bucket, node_id, instance, zone, started_at, {states}, greatest({last_times}) AS last_time,
        least({first_times}) AS first_time, {befores}
    FROM {table}
    WHERE
        bucket >= to_timestamp(%(since)s) AND bucket < to_timestamp(%(stop)s)
        AND (%(node)s::text IS NULL OR node_id = %(node)s)
        AND (%(instance)s::text IS NULL OR instance = %(instance)s)
        AND (%(zone)s::text IS NULL OR zone = %(zone)s)
        AND num_nonnulls({last_times}) > 0
    WINDOW key AS (PARTITION BY {key} ORDER BY bucket, started_at)
)
SELECT
    date_part('epoch', date_bin(make_interval(secs => %(step)s), near.bucket, {origin}))::bigint AS step,
    near.node_id, near.instance, near.zone, '' AS queue_id,
    nullif(date_part('epoch', sum(near.last_time - coalesce(
        near.before,
        (
            SELECT max(greatest({last_times})) FROM {table} AS earlier
            WHERE
                earlier.node_id = near.node_id AND earlier.instance = near.instance
                AND earlier.bucket < near.bucket AND earlier.bucket >= near.bucket - {within}
        ),
        near.first_time
    ))), 0)::float8 AS covered,
    {rises}
FROM near
LEFT JOIN LATERAL (
    SELECT {columns} FROM {table} AS whole
    WHERE
        ({unknown}) AND whole.bucket = near.bucket AND whole.node_id = near.node_id
        AND whole.instance = near.instance AND whole.zone = near.zone
        AND whole.started_at IS NOT DISTINCT FROM near.started_at
    LIMIT 1
) AS whole ON true
WHERE near.bucket >= to_timestamp(%(start)s)
GROUP BY date_bin(make_interval(secs => %(step)s), near.bucket, {origin}), near.node_id, near.instance, near.zone;

-- snapshot_xmin --
-- The first transaction that may still be under way: all before it are over, and what they wrote is seen from now on. On a
-- replica too, of what it has replayed: the numbers are the primary's, and one that a later record names is under way
-- there until its own end is replayed (storage/ipc/procarray.c, KnownAssignedXids).
SELECT pg_snapshot_xmin(pg_current_snapshot())::text, pg_is_in_recovery();

-- new_events --
-- What transactions from one on and before another wrote, all of it where "most" is NULL. Not of a time whose chunks are
-- in columns, where no index helps: what comes that late is found by searching. The order is by the table's xact, which
-- has an index; by its name alone it would be by the text that is selected, where 1000 comes before 999.
SELECT time, event_id, node_id, instance, event_name, {columns}, attributes, xact::text
FROM {table}
WHERE
    xact >= %(after)s::text::xid8 AND xact < %(until)s::text::xid8
    AND (xact, time, event_id) > (%(after)s::text::xid8, %(time)s, %(event_id)s)
    AND time >= now() - interval '8 days'
    AND {condition}
ORDER BY {table}.xact, time, event_id
LIMIT %(most)s;

-- events --
-- The newest rows of an event table that meet the condition.
SELECT time, event_id, node_id, instance, event_name, {columns}, attributes
FROM {table}
WHERE
    {condition}
ORDER BY time DESC, event_id DESC
LIMIT %(limit)s;

-- top --
-- The names with most events, how many of each outcome, and the mean score of those that have one. What a source is
-- says `timescale_sink.api.sources`.
SELECT
    name, sum(events)::bigint AS events, jsonb_object_agg(outcome, events) AS outcomes,
    (sum(scores) / nullif(sum(scored), 0))::float8 AS score
FROM (
    SELECT
        {subject} AS name, coalesce({outcome}, 'unknown') AS outcome, sum(events)::bigint AS events,
        sum({score})::float8 AS scores, count({score}) AS scored
    FROM {source}
    WHERE {condition}
    GROUP BY 1, 2
) AS told
WHERE name IS NOT NULL OR NOT %(named)s
GROUP BY name
ORDER BY events DESC, name
LIMIT %(limit)s;

-- leaders --
-- The names among which those with most events are for sure, by lists of them; NULL where the lists cannot tell. Each has
-- names, their counts, and how many events another name has at most, so that a name has as many as are listed, and at most
-- what all lists leave to it besides. (Fagin, Lotem, Naor: Optimal aggregation algorithms for middleware, 2003.)
WITH list (names, counts, others) AS MATERIALIZED (
    {lists}
),
known AS (
    SELECT name, sum(count) AS least, (SELECT sum(others) FROM list) - sum(others) AS further
    FROM list CROSS JOIN LATERAL unnest(names, counts) AS told (name, count)
    GROUP BY name
),
bound AS (
    SELECT
        (SELECT coalesce(sum(others), 0) FROM list) AS unlisted,
        coalesce((SELECT least FROM known ORDER BY least DESC OFFSET %(limit)s - 1 LIMIT 1), 0) AS least
)
SELECT
    CASE WHEN unlisted < bound.least OR unlisted = 0 THEN
        ARRAY(SELECT known.name FROM known WHERE known.least + known.further >= bound.least)
    END
FROM bound;

-- deliverability --
-- How attempts to deliver ended, by name, and how long they took; the median and the 95th percentile of how long
-- recipients waited until they were delivered.
SELECT
    {subject} AS name, sum(events)::bigint AS attempts,
    coalesce(sum(events) FILTER (WHERE status = 'delivered'), 0)::bigint AS delivered,
    coalesce(sum(events) FILTER (WHERE status = 'deferred'), 0)::bigint AS deferred,
    coalesce(sum(events) FILTER (WHERE status = 'rejected'), 0)::bigint AS rejected,
    (sum(duration_sum) / nullif(sum(duration_count), 0))::float8 AS attempt_duration,
    {percentiles}
FROM {source}
WHERE {condition}
GROUP BY 1
ORDER BY attempts DESC, name
LIMIT %(limit)s;

-- refusals --
-- Why attempts of these names failed: their most frequent categories and codes.
SELECT name, kind, answer, deferred, rejected
FROM (
    SELECT
        name, CASE WHEN grouping(category) = 0 THEN 'categories' ELSE 'codes' END AS kind,
        CASE WHEN grouping(category) = 0 THEN category ELSE code END AS answer,
        coalesce(sum(events) FILTER (WHERE status = 'deferred'), 0)::bigint AS deferred,
        coalesce(sum(events) FILTER (WHERE status = 'rejected'), 0)::bigint AS rejected,
        row_number() OVER (
            PARTITION BY name, grouping(category) ORDER BY sum(events) DESC, category, code
        ) AS place
    FROM (
        SELECT {subject} AS name, coalesce(category, 'unknown') AS category, {code} AS code, status, events
        FROM {source}
        WHERE {condition} AND status IN ('deferred', 'rejected')
    ) AS refused
    WHERE coalesce(name, '') = ANY(%(names)s::text[])
    GROUP BY GROUPING SETS ((name, category), (name, code))
) AS placed
WHERE answer IS NOT NULL AND place <= %(most)s
ORDER BY place;

-- exchangers --
-- The mail exchangers that were asked most, and who runs each.
SELECT host, provider
FROM mail_providers(ARRAY(
    SELECT lower(mx)
    FROM {source}
    WHERE {condition} AND mx IS NOT NULL
    GROUP BY 1
    ORDER BY count(*) DESC
    LIMIT %(limit)s
));

-- deferred_destinations --
-- What waits for a further attempt, by where to and why, most recipients first.
SELECT
    to_domain, mx, category, count(*) AS recipients, min(since) AS since, max(time) AS last_attempt,
    (max(ARRAY[to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), response]))[2] AS response
FROM deferred_recipient
WHERE
    (%(nodes)s::text[] IS NULL OR node_id = ANY(%(nodes)s))
    AND (%(zone)s = '' OR zone = %(zone)s)
    AND (%(domain)s = '' OR to_domain = %(domain)s)
    AND (%(provider)s = '' OR strpos(lower(mx), lower(%(provider)s)) > 0)
GROUP BY to_domain, mx, category
ORDER BY recipients DESC, to_domain, mx, category
LIMIT %(limit)s;

-- quotas --
-- What each user was last told to store, within two days before the end, because each is told once a day.
SELECT name, used, allowed, time
FROM (
    SELECT DISTINCT ON (attributes ->> 'user.id')
        coalesce(attributes ->> 'user.name', attributes ->> 'user.id') AS name, time,
        CASE WHEN jsonb_typeof(attributes -> 'wildduck.quota.used') = 'number'
            THEN (attributes -> 'wildduck.quota.used')::float8 END AS used,
        CASE WHEN jsonb_typeof(attributes -> 'wildduck.quota.allowed') = 'number'
            THEN nullif((attributes -> 'wildduck.quota.allowed')::float8, 0) END AS allowed
    FROM otel_log
    WHERE
        event_name = 'wildduck.quota.snapshot' AND attributes ? 'user.id'
        AND time > %(stop)s - interval '2 days' AND time <= %(stop)s
        AND (%(nodes)s::text[] IS NULL OR node_id = ANY(%(nodes)s))
    ORDER BY attributes ->> 'user.id', time DESC
) AS told
WHERE used IS NOT NULL
ORDER BY CASE WHEN %(nearest)s THEN used / allowed ELSE used END DESC NULLS LAST, name
LIMIT %(limit)s;

-- scores --
-- How many messages had which score of Rspamd's, by steps; the outer ones hold what is beyond.
SELECT
    (greatest(-4, least(8, floor(spam_score / %(step)s))) * %(step)s)::int AS score, count(*) AS messages,
    count(*) FILTER (WHERE outcome = 'rejected') AS rejected
FROM email_events
WHERE
    time >= %(start)s AND time < %(stop)s AND spam_score IS NOT NULL
    AND (%(nodes)s::text[] IS NULL OR node_id = ANY(%(nodes)s))
GROUP BY 1
ORDER BY 1;

-- alerts --
-- The alerts that there are, what is worst and newest first, and whether they are silenced.
SELECT
    rule, labels, state, severity, title, value, details, since, seen, acknowledged_by, acknowledged_at,
    EXISTS (
        SELECT FROM alert_silence AS silence
        WHERE
            now() >= silence.starts AND now() < silence.ends
            AND coalesce(silence.rule, alert.rule) = alert.rule AND alert.labels @> silence.labels
    ) AS silenced
FROM alert
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY state = 'firing' DESC, state = 'pending' DESC, severity, since DESC, rule, labels
LIMIT 1000;

-- alert_changes --
-- What began to fire and what was resolved, the newest first.
SELECT time, rule, labels, state, value
FROM alert_change
WHERE time >= to_timestamp(%(start)s) AND time < to_timestamp(%(stop)s)
ORDER BY time DESC, id DESC
LIMIT 1000;

-- acknowledge --
-- Says who looks after what fires or is pending.
UPDATE alert SET acknowledged_by = %(author)s, acknowledged_at = now()
WHERE rule = %(rule)s AND labels = %(labels)s AND state <> 'resolved'
RETURNING rule;

-- silences --
SELECT id, rule, labels, starts, ends, author, reason
FROM alert_silence
WHERE ends > now()
ORDER BY starts, id
LIMIT 1000;

-- silence --
INSERT INTO alert_silence (rule, labels, starts, ends, author, reason)
VALUES (%(rule)s, %(labels)s, coalesce(%(starts)s, now()), %(ends)s, %(author)s, %(reason)s)
RETURNING id, rule, labels, starts, ends, author, reason;

-- end_silence --
-- One that began ends now; one that is to come is as if it had not been.
WITH gone AS (DELETE FROM alert_silence WHERE id = %(id)s AND starts >= now() RETURNING id),
ended AS (UPDATE alert_silence SET ends = now() WHERE id = %(id)s AND starts < now() AND ends > now() RETURNING id)
SELECT id FROM gone UNION ALL SELECT id FROM ended;
