-- TimescaleDB's own jobs, made to be what the settings say; each answers whether that was another than before.

-- The continuous aggregates under a rollup's public name, `<rollup>_<number>`.
CREATE OR REPLACE FUNCTION aggregates_of(rollup text)
RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    SELECT view_name::text FROM timescaledb_information.continuous_aggregates
    WHERE view_schema = current_schema() AND view_name ~ ('^' || rollup || '_[0-9]+$')
    ORDER BY length(view_name), view_name
$$;

-- A table's rollups, refreshed one after the other: smaller buckets before the larger ones that are made of them, or what
-- came late would be in the largest three runs later. The job of `keep_refreshed`. Not one that is still made of what is
-- older: TimescaleDB takes for made whatever lies before the newest that was.
CREATE OR REPLACE PROCEDURE refresh_rollups(job_id int, config jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    begun CONSTANT timestamptz := now();
    rollup jsonb;
    aggregate text;
BEGIN
    -- A worker's session knows no schema of one's own.
    PERFORM set_config('search_path', config ->> 'search_path', false);
    FOR rollup IN SELECT jsonb_array_elements(config -> 'rollups') LOOP
        CONTINUE WHEN (SELECT pending FROM retention WHERE relation = rollup ->> 'name');
        FOR aggregate IN SELECT aggregates_of(rollup ->> 'name') LOOP
            CALL refresh_continuous_aggregate(
                aggregate::regclass, begun - (rollup ->> 'reach')::interval, begun - (rollup ->> 'behind')::interval
            );
            -- Only what is committed is known to have changed.
            COMMIT;
        END LOOP;
    END LOOP;
END $$;

-- Every five minutes; `rollups` is an array of {name, reach, behind}, from how long ago to how long ago.
DROP FUNCTION IF EXISTS keep_refreshed(text, interval, interval, int);
CREATE OR REPLACE FUNCTION keep_refreshed(relation text, rollups jsonb)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    every CONSTANT interval := '5 minutes';
    wanted CONSTANT jsonb := jsonb_build_object('table', relation, 'rollups', rollups);
    known record;
    aggregate text;
BEGIN
    SELECT job.job_id, job.config - 'search_path' = wanted AND job.schedule_interval = every AS is_so INTO known
    FROM timescaledb_information.jobs AS job
    WHERE job.proc_name = 'refresh_rollups' AND job.proc_schema = current_schema() AND job.config ->> 'table' = relation;
    IF known.is_so THEN
        RETURN false;
    END IF;
    PERFORM delete_job(known.job_id) WHERE known.job_id IS NOT NULL;
    -- Those of a Postel that had a job for each aggregate.
    FOR aggregate IN SELECT aggregates_of(rollup ->> 'name') FROM jsonb_array_elements(rollups) AS rollup LOOP
        PERFORM remove_continuous_aggregate_policy(aggregate::regclass, if_exists => true);
    END LOOP;
    PERFORM add_job(
        'refresh_rollups', every, wanted || jsonb_build_object('search_path', current_setting('search_path')),
        fixed_schedule => false
    );
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
    aggregated CONSTANT boolean := EXISTS (
        SELECT FROM timescaledb_information.continuous_aggregates
        WHERE view_schema = current_schema() AND view_name = relation
    );
BEGIN
    IF known IS NOT DISTINCT FROM older THEN
        RETURN false;
    END IF;
    CALL remove_columnstore_policy(relation::regclass, if_exists => true);
    IF older IS NOT NULL THEN
        -- Of an aggregate TimescaleDB asks for a policy that refreshes it, to keep what that makes anew out of columns. Here
        -- `refresh_rollups` is what refreshes, nine days back at most: one of that reach stands for it at this moment.
        IF aggregated THEN
            PERFORM remove_continuous_aggregate_policy(relation::regclass, if_exists => true);
            PERFORM add_continuous_aggregate_policy(
                relation::regclass, interval '9 days', interval '1 day', schedule_interval => interval '5 minutes'
            );
        END IF;
        CALL add_columnstore_policy(relation::regclass, after => older);
        IF aggregated THEN
            PERFORM remove_continuous_aggregate_policy(relation::regclass);
        END IF;
    END IF;
    RETURN true;
END $$;
