-- How much each counter of WildDuck rose since the point before it; 0001_counter_increase.sql says how that is found.

CREATE OR REPLACE VIEW metrics_wildduck_increase AS
SELECT
    row.time, row.node_id, row.instance, row.zone, row.started_at,
    counter_increase(row.lmtp_accepted_total, lmtp_accepted_total_before.value, row.started_at, row.time) AS lmtp_accepted_total,
    counter_increase(row.lmtp_rejected_total, lmtp_rejected_total_before.value, row.started_at, row.time) AS lmtp_rejected_total,
    counter_increase(row.lmtp_error_total, lmtp_error_total_before.value, row.started_at, row.time) AS lmtp_error_total
FROM metrics_wildduck AS row
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.lmtp_accepted_total FROM metrics_wildduck AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.lmtp_accepted_total IS NOT NULL AND row.lmtp_accepted_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS lmtp_accepted_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.lmtp_rejected_total FROM metrics_wildduck AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.lmtp_rejected_total IS NOT NULL AND row.lmtp_rejected_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS lmtp_rejected_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.lmtp_error_total FROM metrics_wildduck AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.lmtp_error_total IS NOT NULL AND row.lmtp_error_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS lmtp_error_total_before;
