-- The deferred queue as its events tell it: what waits for a further attempt, to where, and since when.
--
-- A recipient waits where the last that was heard of it is a deferral. Zone-MTA's default schedule tries again within four
-- hours each time, so that what was silent for three days is gone, though nobody said so; so the view costs what three
-- days hold. A recipient is told from the others of its message by Zone-MTA's number of it, else by its address: with
-- `[privacy] addresses = "domain"` Haraka's recipients in one domain are one here.

CREATE OR REPLACE VIEW deferred_recipient AS
SELECT
    last.time, last.node_id, last.instance, last.queue_id, last.recipient, last.message_id, last.zone, last.to_domain,
    last.mx, last.category, last.smtp_code, last.enhanced_code, last.response, last.attempt,
    last.attributes ->> 'zonemta.next_attempt.time' AS next_attempt,
    (
        SELECT min(first.time) FROM delivery_events AS first
        WHERE
            first.queue_id = last.queue_id AND first.status = 'deferred'
            AND coalesce(first.attributes ->> 'zonemta.message.seq', first.attributes ->> 'email.to.address', '')
            = last.recipient
            AND first.time >= now() - interval '3 days'
    ) AS since
FROM (
    SELECT
        event.*,
        coalesce(event.attributes ->> 'zonemta.message.seq', event.attributes ->> 'email.to.address', '') AS recipient
    FROM delivery_events AS event
    WHERE event.status = 'deferred' AND event.queue_id IS NOT NULL AND event.time >= now() - interval '3 days'
) AS last
WHERE
    NOT EXISTS (
        SELECT FROM delivery_events AS later
        WHERE
            later.queue_id = last.queue_id AND later.time >= last.time
            AND coalesce(later.attributes ->> 'zonemta.message.seq', later.attributes ->> 'email.to.address', '')
            = last.recipient
            AND (later.time, later.event_id) > (last.time, last.event_id)
            AND later.time >= now() - interval '3 days'
    )
    -- Deleted, or thrown away because it was suppressed meanwhile: this recipient, or the whole message.
    AND NOT EXISTS (
        SELECT FROM email_events AS gone
        WHERE
            gone.queue_id = last.queue_id AND gone.time >= last.time AND gone.outcome IN ('deleted', 'dropped')
            AND coalesce(gone.attributes ->> 'zonemta.message.seq', last.recipient) = last.recipient
            AND gone.time >= now() - interval '3 days'
    );
COMMENT ON VIEW deferred_recipient IS 'Recipients that wait for a further attempt, by the events of the last three days';

CREATE OR REPLACE VIEW deferred_destination AS
SELECT
    to_domain, mx, category,
    count(*) AS recipients,
    count(DISTINCT queue_id) AS messages,
    min(since) AS since,
    max(time) AS last_attempt,
    -- The last one; an array of all would be as long as the queue.
    (max(ARRAY[to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), response]))[2] AS response
FROM deferred_recipient
GROUP BY to_domain, mx, category;
COMMENT ON VIEW deferred_destination IS 'Where the deferred queue wants to go, and why it does not get there';
