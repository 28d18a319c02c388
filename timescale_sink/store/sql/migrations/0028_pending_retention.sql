-- What waits for its rollups, and which dead letters stand below a part.

ALTER TABLE retention ADD COLUMN pending boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN retention.pending IS 'Nothing is dropped yet: the rollups of what is older are made first';

-- What stood above no letter that is left is found by these; without them all letters were read, under a lock.
CREATE INDEX dead_letter_resource ON dead_letter (resource_id);
CREATE INDEX dead_letter_scope ON dead_letter (scope_id);
CREATE INDEX dead_letter_metric ON dead_letter (metric_id);
