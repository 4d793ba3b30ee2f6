#!/bin/bash
# Copies the primary once and streams from it.
set -euo pipefail
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    pg_basebackup -h primary -U postgres -D "$PGDATA" -R -X stream
    chmod 700 "$PGDATA"
fi
exec postgres
