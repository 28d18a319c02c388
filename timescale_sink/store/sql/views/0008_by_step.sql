-- What a chart reads of a table for its range: the rows, or the largest buckets that make up its step, as the API does
-- (api/rolled.py). For whoever has one query for every range, as Grafana has: a union of all sizes with a condition on each
-- is planned whole, each view of it, which on TimescaleDB takes ten times as long as reading the one.
--
--   source      the table
--   rollups     what the names of its rollups begin with, those with the fewest rows first; one without node_id is of all
--               nodes, and read where all are asked for
--   step_ms     the chart's step, milliseconds
--   nodes       their ids; '*' among them: all
--   of_rows     what is selected behind the time, over the rows; the types are those that the caller gives the answer
--   of_buckets  the same over a rollup
--   condition   one of both
--   behind      also what was just before the range, by which it is known what a counter rose by
--
-- The first column is the time: of a bucket its begin, of a week its Thursday, since weeks that are counted from 1970, as
-- Grafana's are, begin there. The bucket in which the range begins belongs to it. What is still being made of other
-- rollups is read slowly, so that it is left alone until it is there.
CREATE OR REPLACE FUNCTION by_step(
    source text, rollups text[], step_ms bigint, since timestamptz, until timestamptz, nodes text[],
    of_rows text, of_buckets text, condition text DEFAULT 'true', behind boolean DEFAULT false
)
RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
DECLARE
    every_node CONSTANT boolean := '*' = ANY (nodes);
    by_node CONSTANT text := CASE WHEN every_node THEN 'true' ELSE 'node_id = ANY ($3)' END;
    chosen record;
BEGIN
    SELECT relation, length INTO chosen
    FROM unnest(rollups) WITH ORDINALITY AS rollup (name, number)
    CROSS JOIN (
        VALUES
            ('5m', interval '5 minutes'), ('15m', interval '15 minutes'), ('1h', interval '1 hour'),
            ('6h', interval '6 hours'), ('daily', interval '24 hours'), ('weekly', interval '168 hours')
    ) AS size (name, length)
    CROSS JOIN LATERAL (SELECT rollup.name || '_' || size.name AS relation) AS named
    WHERE
        step_ms % (extract(epoch FROM length) * 1000)::bigint = 0
        AND to_regclass(quote_ident(relation)) IS NOT NULL
        AND (
            every_node
            OR EXISTS (
                SELECT FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(relation)) AND attname = 'node_id'
            )
        )
        AND NOT EXISTS (SELECT FROM retention AS kept WHERE kept.relation = named.relation AND kept.pending)
    ORDER BY length DESC, number
    LIMIT 1;
    IF chosen.relation IS NULL THEN
        RETURN QUERY EXECUTE format(
            'SELECT time, %s FROM %I WHERE time > $1 - $4 AND time <= $2 AND %s AND (%s)', of_rows, source, by_node, condition
        ) USING since, until, nodes, CASE WHEN behind THEN interval '10 minutes' ELSE interval '0' END;
    ELSE
        RETURN QUERY EXECUTE format(
            'SELECT bucket + $5, %s FROM %I WHERE bucket > $1 - $4 AND bucket <= $2 AND %s AND (%s)',
            of_buckets, chosen.relation, by_node, condition
        ) USING
            since, until, nodes, CASE WHEN behind THEN 2 ELSE 1 END * chosen.length,
            CASE WHEN chosen.length = interval '168 hours' THEN interval '72 hours' ELSE interval '0' END;
    END IF;
END $$;
COMMENT ON FUNCTION by_step(text, text[], bigint, timestamptz, timestamptz, text[], text, text, text, boolean)
IS 'The rows of a range, or the largest buckets that make up a step';
