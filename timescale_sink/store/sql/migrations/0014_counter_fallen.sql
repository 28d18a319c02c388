-- What the rollups ask of the values of a counter in the order of their times. Aggregates are made with it: it never changes.

CREATE FUNCTION counter_fallen(firsts bigint[], lasts bigint[])
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- From the last value of each to the first of the next. NULL where there is none, as the other states are.
RETURN CASE WHEN firsts IS NOT NULL THEN (
    SELECT coalesce(sum(lasts[i]), 0) FROM generate_subscripts(lasts, 1) AS subscript (i) WHERE firsts[i + 1] < lasts[i]
) END;
COMMENT ON FUNCTION counter_fallen IS 'The sum of the values from which a counter fell: last - first + this is its increase';
