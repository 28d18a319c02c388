-- How much a counter rose since the point before it, so that the sum over the rows of any window is exact.
--
-- The point before is the nearest earlier one of the same epoch (`started_at`): found through the key's index, row by row,
-- so that a window costs what it holds and not the history before it.

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

CREATE OR REPLACE VIEW metrics_zonemta_increase AS
SELECT
    row.time, row.node_id, row.instance, row.zone, row.started_at,
    counter_increase(row.delivered_total, delivered_total_before.value, row.started_at, row.time) AS delivered_total,
    counter_increase(row.rejected_total, rejected_total_before.value, row.started_at, row.time) AS rejected_total,
    counter_increase(row.deferred_total, deferred_total_before.value, row.started_at, row.time) AS deferred_total,
    counter_increase(row.unknown_total, unknown_total_before.value, row.started_at, row.time) AS unknown_total
FROM metrics_zonemta AS row
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.delivered_total FROM metrics_zonemta AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.delivered_total IS NOT NULL AND row.delivered_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS delivered_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.rejected_total FROM metrics_zonemta AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.rejected_total IS NOT NULL AND row.rejected_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS rejected_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.deferred_total FROM metrics_zonemta AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.deferred_total IS NOT NULL AND row.deferred_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS deferred_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.unknown_total FROM metrics_zonemta AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.unknown_total IS NOT NULL AND row.unknown_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS unknown_total_before;

CREATE OR REPLACE VIEW metrics_system_increase AS
SELECT
    row.time, row.node_id, row.instance, row.zone, row.started_at,
    counter_increase(row.network_in, network_in_before.value, row.started_at, row.time) AS network_in,
    counter_increase(row.network_out, network_out_before.value, row.started_at, row.time) AS network_out
FROM metrics_system AS row
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.network_in FROM metrics_system AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.network_in IS NOT NULL AND row.network_in IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS network_in_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.network_out FROM metrics_system AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.network_out IS NOT NULL AND row.network_out IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS network_out_before;
