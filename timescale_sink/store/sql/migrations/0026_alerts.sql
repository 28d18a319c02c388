-- Alerts: what is wrong now, what became of it, what is silenced, and what still has to be told to whom.

CREATE TABLE alert (
    rule text NOT NULL,
    labels jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    since timestamptz NOT NULL,
    seen timestamptz NOT NULL,
    value double precision NOT NULL,
    title text NOT NULL,
    severity text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    told text CHECK (told IN ('firing', 'resolved')),
    told_at timestamptz,
    acknowledged_by text,
    acknowledged_at timestamptz,
    PRIMARY KEY (rule, labels)
);
COMMENT ON TABLE alert IS 'Each subject of a rule for which it is or lately was so';
COMMENT ON COLUMN alert.labels IS 'What tells the subject from others of the rule, names and texts';
COMMENT ON COLUMN alert.since IS 'Since when it is in this state';
COMMENT ON COLUMN alert.seen IS 'When the condition was last met';
COMMENT ON COLUMN alert.told IS 'What was last told of it';

CREATE TABLE alert_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time timestamptz NOT NULL,
    rule text NOT NULL,
    labels jsonb NOT NULL,
    state text NOT NULL,
    value double precision NOT NULL
);
CREATE INDEX alert_change_time ON alert_change (time);
COMMENT ON TABLE alert_change IS 'Every change of an alert to firing and to resolved';

CREATE TABLE alert_silence (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    rule text,
    labels jsonb NOT NULL DEFAULT '{}',
    starts timestamptz NOT NULL,
    ends timestamptz NOT NULL,
    author text NOT NULL,
    reason text NOT NULL,
    CHECK (starts < ends)
);
COMMENT ON TABLE alert_silence IS 'What is told to nobody: alerts of the rule (NULL: of each) that have all of the labels';

CREATE TABLE alert_notification (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target text NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    severity text NOT NULL,
    made_at timestamptz NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    next_attempt timestamptz NOT NULL,
    sent_at timestamptz
);
CREATE INDEX alert_notification_open ON alert_notification (next_attempt) WHERE sent_at IS NULL;
COMMENT ON TABLE alert_notification IS 'Messages to targets; those that were not sent yet are tried again';
COMMENT ON COLUMN alert_notification.target IS 'A hash of where it goes: the address itself may hold a password';
