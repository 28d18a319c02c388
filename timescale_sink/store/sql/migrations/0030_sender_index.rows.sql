-- Finds what a sender sent, for the alert rule sender-volume, where the rollup by sender is a view of the rows. The
-- expression is that of `email_events_senders_1h`.

CREATE INDEX email_events_sender ON email_events (
    (coalesce(attributes ->> 'user.name', coalesce(from_user || '@', '') || from_domain)), time
)
WHERE direction = 'outbound' AND outcome IN ('queued', 'accepted');
