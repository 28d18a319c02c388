-- TimescaleDB's own jobs, made to be what the settings say; each answers whether that was another than before.

-- The continuous aggregates under a rollup's public name, `<rollup>_<number>`.
CREATE OR REPLACE FUNCTION aggregates_of(rollup text)
RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    SELECT view_name::text FROM timescaledb_information.continuous_aggregates
    WHERE view_schema = current_schema() AND view_name ~ ('^' || rollup || '_[0-9]+$')
    ORDER BY length(view_name), view_name
$$;

-- Refreshed every five minutes, from `reach` ago to `behind` ago, `batch` buckets in a transaction. Left to itself TimescaleDB
-- takes a transaction for each bucket: for those of eight days 17 s here, and 0.3 s by the day.
CREATE OR REPLACE FUNCTION keep_refreshed(aggregate text, reach interval, behind interval, batch int)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    every CONSTANT interval := '5 minutes';
BEGIN
    IF EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_refresh_continuous_aggregate'
            AND hypertable_schema = current_schema() AND hypertable_name = aggregate
            AND (config ->> 'start_offset')::interval = reach AND (config ->> 'end_offset')::interval = behind
            AND coalesce((config ->> 'buckets_per_batch')::int, batch) = batch AND schedule_interval = every
    ) THEN
        RETURN false;
    END IF;
    PERFORM remove_continuous_aggregate_policy(aggregate::regclass, if_exists => true);
    -- A version that does not know of batches takes all in one.
    IF EXISTS (
        SELECT FROM pg_proc
        WHERE proname = 'add_continuous_aggregate_policy' AND 'buckets_per_batch' = ANY (proargnames)
    ) THEN
        PERFORM add_continuous_aggregate_policy(
            aggregate::regclass, reach, behind, schedule_interval => every, buckets_per_batch => batch
        );
    ELSE
        PERFORM add_continuous_aggregate_policy(aggregate::regclass, reach, behind, schedule_interval => every);
    END IF;
    RETURN true;
END $$;

-- What is older is dropped, chunk by chunk; NULL: nothing is.
CREATE OR REPLACE FUNCTION keep_at_most(relation text, at_most interval)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    hours CONSTANT interval := make_interval(hours => (extract(epoch FROM at_most) / 3600)::int);
    known CONSTANT interval := (
        SELECT (config ->> 'drop_after')::interval FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention' AND hypertable_schema = current_schema() AND hypertable_name = relation
    );
BEGIN
    IF known IS NOT DISTINCT FROM hours THEN
        RETURN false;
    END IF;
    PERFORM remove_retention_policy(relation::regclass, if_exists => true);
    IF hours IS NOT NULL THEN
        PERFORM add_retention_policy(relation::regclass, drop_after => hours);
    END IF;
    RETURN true;
END $$;

-- What is older is stored in columns; NULL: nothing is, but what already was.
CREATE OR REPLACE FUNCTION keep_in_columns(relation text, older interval)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    known CONSTANT interval := (
        SELECT (config ->> 'compress_after')::interval FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_compression' AND hypertable_schema = current_schema() AND hypertable_name = relation
    );
BEGIN
    IF known IS NOT DISTINCT FROM older THEN
        RETURN false;
    END IF;
    CALL remove_columnstore_policy(relation::regclass, if_exists => true);
    IF older IS NOT NULL THEN
        CALL add_columnstore_policy(relation::regclass, after => older);
    END IF;
    RETURN true;
END $$;
