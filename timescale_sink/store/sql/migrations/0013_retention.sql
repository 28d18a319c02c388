-- What is kept for how long, and what the ledger has to know of it.

CREATE TABLE retention (
    relation text PRIMARY KEY,
    keep interval,
    kept_since timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE retention IS 'How long the rows of each table and rollup are kept, by the settings';
COMMENT ON COLUMN retention.keep IS 'In hours, a multiple of a day, which is 24 of them; NULL: for ever';
COMMENT ON COLUMN retention.kept_since IS 'What is older may be gone by an earlier setting';

ALTER TABLE ingest_ledger ADD COLUMN letters_removed bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ingest_ledger.letters_removed IS 'Of the dead letters, those that retention has deleted since';
