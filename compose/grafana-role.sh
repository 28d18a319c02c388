#!/bin/sh
# Run once by the database's image, when it makes the database: the role that Grafana reads as (docs/grafana.md). What
# the sink makes later as $POSTGRES_USER is readable by it too.
set -eu
psql -v ON_ERROR_STOP=1 -v owner="$POSTGRES_USER" -v password="$(cat "${GRAFANA_PASSWORD_FILE:-/run/secrets/grafana_password}")" \
    --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE grafana LOGIN PASSWORD :'password';
GRANT USAGE ON SCHEMA public TO grafana;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO grafana;
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON TABLES TO grafana;
ALTER ROLE grafana SET jit = off;
ALTER ROLE grafana SET statement_timeout = '60s';
SQL
