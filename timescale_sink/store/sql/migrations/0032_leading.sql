-- The names with most of what was counted, the first `most` of them, and their counts in the same order. Aggregates are made
-- with these: they never change.

CREATE FUNCTION leading_names(names text[], counts bigint[], most int)
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT told.name FROM unnest(names, counts) AS told (name, count)
    GROUP BY told.name ORDER BY sum(told.count) DESC, told.name COLLATE "C" LIMIT most
);

CREATE FUNCTION leading_counts(names text[], counts bigint[], most int)
RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT sum(told.count)::bigint FROM unnest(names, counts) AS told (name, count)
    GROUP BY told.name ORDER BY sum(told.count) DESC, told.name COLLATE "C" LIMIT most
);
