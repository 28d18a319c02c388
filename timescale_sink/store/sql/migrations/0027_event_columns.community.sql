-- On TimescaleDB Community: events and logs go into columns by their time alone.
--
-- A row is told from the others by its id, and no row of the table says where in columns an id is but its time. By segments
-- of nodes each late row was looked for in a batch of every node; so it is in one, whose times are its own.
-- What is in columns already stays as it is.

ALTER TABLE otel_log SET (timescaledb.segmentby = '', timescaledb.orderby = 'time');
ALTER TABLE email_events SET (timescaledb.segmentby = '', timescaledb.orderby = 'time');
ALTER TABLE delivery_events SET (timescaledb.segmentby = '', timescaledb.orderby = 'time');
