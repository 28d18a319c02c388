-- From when on the rows of a table or rollup are all there, as far as retention goes: the begin of a day (UTC).
--
-- What is older may be gone or not: TimescaleDB's jobs drop whole chunks, a sink deletes step by step. So nobody asks what
-- was dropped, but what may have been.
--
-- A view for views: a function of theirs would ask with the rights of who reads them.

CREATE OR REPLACE VIEW retained AS
SELECT
    relation,
    CASE WHEN pending THEN kept_since ELSE greatest(kept_since, date_trunc('day', now() - keep, 'UTC')) END AS since
FROM retention;
COMMENT ON VIEW retained IS 'Since when the rows of a table or rollup are all there, as far as retention goes';

CREATE OR REPLACE FUNCTION kept_since(relation text)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((SELECT since FROM retained WHERE retained.relation = kept_since.relation), '-infinity');

-- From when on rollups of a table may be made of its rows. Within these hours before midnight nothing is made of the day
-- that is dropped next: it could be dropped meanwhile, and its rollups with it.
CREATE OR REPLACE FUNCTION refreshable_since(relation text)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(
    (
        SELECT CASE WHEN kept.pending THEN kept.kept_since ELSE
            greatest(kept.kept_since, date_trunc('day', now() + interval '6 hours' - kept.keep, 'UTC'))
        END
        FROM retention AS kept WHERE kept.relation = refreshable_since.relation
    ),
    '-infinity'
);

-- Sets for how long a relation is kept, NULL for ever, and answers whether that was another time before. In hours, because
-- a day of the session's zone may have 23. What an earlier setting may have taken stays known, and so does from when on
-- there are rows at all, where that is said at the first time. With `rolled_first` what shall be dropped sooner than before
-- waits for its rollups (`pending`); of a rollup that is said at the first time alone, as long as it is still made of others.
DROP FUNCTION IF EXISTS keep(text, interval, timestamptz);
CREATE OR REPLACE FUNCTION keep(
    relation text, at_most interval, since timestamptz DEFAULT '-infinity', rolled_first boolean DEFAULT false
)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    hours CONSTANT interval := make_interval(hours => (extract(epoch FROM at_most) / 3600)::int);
    known record;
BEGIN
    SELECT * INTO known FROM retention AS kept WHERE kept.relation = keep.relation;
    IF FOUND AND known.keep IS NOT DISTINCT FROM hours THEN
        RETURN false;
    END IF;
    INSERT INTO retention AS kept (relation, keep, kept_since, pending)
    VALUES (keep.relation, hours, since, rolled_first)
    ON CONFLICT ON CONSTRAINT retention_pkey DO UPDATE SET
        kept_since = kept_since(keep.relation),
        keep = excluded.keep,
        pending = kept.pending OR (
            rolled_first AND excluded.keep IS NOT NULL AND (kept.keep IS NULL OR excluded.keep < kept.keep)
        );
    RETURN true;
END $$;
