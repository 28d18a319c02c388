#!/bin/sh
# Makes the logins of Postel's database, each with no more rights than its service needs (docs/security.md), and gives
# each the password that its secret holds. The database's image runs it when it makes the database; where a password was
# changed since, it is run by hand:
#   docker compose exec --user postgres timescaledb /docker-entrypoint-initdb.d/100-roles.sh
set -eu
secrets="${POSTEL_SECRETS:-/run/secrets}"

password_of() { # a secret: a URL, or the password alone
    password="$(sed -E 's,^postgresql://[^:/]*:([^@]*)@.*,\1,' "$secrets/$1")"
    case "$password" in
    '' | *[!A-Za-z0-9._~-]*)
        # In the URL, and below, every other character would have to be written in another way.
        echo "$1: a password of letters, digits and . _ ~ - is wanted" >&2
        exit 1
        ;;
    esac
    echo "$password"
}

owner="$(password_of database_owner_url)"
sink="$(password_of database_sink_url)"
serve="$(password_of database_serve_url)"
grafana="$(password_of grafana_password)"

# As the image's superuser, by the Unix socket. The statements go in by a pipe: arguments are seen by who lists processes.
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<SQL
SET client_min_messages = warning;
BEGIN;
SELECT format('CREATE ROLE %I %s', name, CASE WHEN name LIKE 'postel\_%' THEN 'NOLOGIN' ELSE 'LOGIN' END)
FROM unnest(ARRAY['postel', 'sink', 'serve', 'grafana', 'postel_write', 'postel_serve', 'postel_read']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE postel PASSWORD '$owner';
ALTER ROLE sink PASSWORD '$sink';
ALTER ROLE serve PASSWORD '$serve';
ALTER ROLE grafana PASSWORD '$grafana';
-- What these three may, \`postel db roles\` grants, once there are tables.
GRANT postel_write TO sink;
GRANT postel_serve TO serve;
GRANT postel_read TO grafana;
-- docs/grafana.md says why.
ALTER ROLE grafana SET jit = off;
ALTER ROLE grafana SET statement_timeout = '60s';
-- With it goes the schema public, and so the tables: who migrates is not the superuser.
SELECT format('ALTER DATABASE %I OWNER TO postel', current_database()) \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
COMMIT;
SQL
