#!/bin/sh
# Makes the secrets that compose.yaml mounts, those that are not there yet, in ./secrets of the checkout:
#   sh compose/secrets.sh
# The folder is its owner's alone. The files in it are readable, for each container reads those that it is given as a
# user of its own.
set -eu
cd "$(dirname "$0")/.."
mkdir -p secrets
chmod 700 secrets
umask 022

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

make() { # file, text
    if [ ! -e "secrets/$1" ]; then
        printf '%s' "$2" >"secrets/$1"
        echo "made secrets/$1"
    fi
}

# Of the superuser, whom no service is.
make database_password "$(random)"
make database_owner_url "postgresql://postel:$(random)@timescaledb:5432/postel"
make database_sink_url "postgresql://sink:$(random)@timescaledb:5432/postel"
make database_serve_url "postgresql://serve:$(random)@timescaledb:5432/postel"
make sink_token "$(random)"
# Of who may look and of who may acknowledge and silence alerts too: lists, so that each person can have one.
make read_tokens "[\"$(random)\"]"
make admin_tokens "[\"$(random)\"]"
make grafana_password "$(random)"
make grafana_admin_password "$(random)"
