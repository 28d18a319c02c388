-- A node goes when all that was kept of it has gone. Sinks delete it: their role is granted what it needs by each migration.

COMMENT ON TABLE node IS 'Hosts of which something is kept: host.id of the resource';
