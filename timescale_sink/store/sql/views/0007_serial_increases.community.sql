-- No parallel plan of what tells increases. The subplans that look for the point before are planned for a worker, which is
-- not given them, because TimescaleDB's scan of several chunks says of itself that it is none for workers: "subplan was
-- not initialized" (2.23.1, PostgreSQL 15). A query that names an unsafe function has no workers at all.
ALTER FUNCTION counter_increase(bigint, bigint, timestamptz, timestamptz) PARALLEL UNSAFE;
