-- How much a counter rose since the point before it, so that the sum over the rows of any window is exact.
--
-- The views that ask for it, one for each typed table, are made from the declarations (store/increase.py).

CREATE OR REPLACE FUNCTION counter_increase(value bigint, before bigint, started_at timestamptz, at timestamptz)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    -- Within one epoch a counter never falls; a sender that says no start may, and then it began anew.
    WHEN before IS NOT NULL THEN CASE WHEN value >= before THEN value - before ELSE value END
    -- The first point of an epoch: what a counter says when it is met for the first time is not of this window.
    WHEN started_at IS NULL OR started_at >= at THEN CASE WHEN value IS NOT NULL THEN 0 END
    ELSE value
END;
