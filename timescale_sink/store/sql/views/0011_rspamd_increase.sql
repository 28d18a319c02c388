-- How much each counter of Rspamd rose since the point before it; 0001_counter_increase.sql says how that is found.

CREATE OR REPLACE VIEW metrics_rspamd_increase AS
SELECT
    row.time, row.node_id, row.instance, row.zone, row.started_at,
    counter_increase(row.scanned_total, scanned_total_before.value, row.started_at, row.time) AS scanned_total,
    counter_increase(row.reject_total, reject_total_before.value, row.started_at, row.time) AS reject_total,
    counter_increase(row.soft_reject_total, soft_reject_total_before.value, row.started_at, row.time) AS soft_reject_total,
    counter_increase(row.rewrite_subject_total, rewrite_subject_total_before.value, row.started_at, row.time) AS rewrite_subject_total,
    counter_increase(row.add_header_total, add_header_total_before.value, row.started_at, row.time) AS add_header_total,
    counter_increase(row.greylist_total, greylist_total_before.value, row.started_at, row.time) AS greylist_total,
    counter_increase(row.no_action_total, no_action_total_before.value, row.started_at, row.time) AS no_action_total,
    counter_increase(row.learned_total, learned_total_before.value, row.started_at, row.time) AS learned_total
FROM metrics_rspamd AS row
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.scanned_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.scanned_total IS NOT NULL AND row.scanned_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS scanned_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.reject_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.reject_total IS NOT NULL AND row.reject_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS reject_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.soft_reject_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.soft_reject_total IS NOT NULL AND row.soft_reject_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS soft_reject_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.rewrite_subject_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.rewrite_subject_total IS NOT NULL AND row.rewrite_subject_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS rewrite_subject_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.add_header_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.add_header_total IS NOT NULL AND row.add_header_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS add_header_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.greylist_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.greylist_total IS NOT NULL AND row.greylist_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS greylist_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.no_action_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.no_action_total IS NOT NULL AND row.no_action_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS no_action_total_before
CROSS JOIN LATERAL (
    SELECT (
        SELECT before.learned_total FROM metrics_rspamd AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.learned_total IS NOT NULL AND row.learned_total IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS learned_total_before;
