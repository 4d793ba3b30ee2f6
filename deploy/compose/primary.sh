#!/bin/bash
# Lets the standby stream. The image runs it once, when the cluster has been made.
set -euo pipefail
echo "host replication postgres all scram-sha-256" >>"$PGDATA/pg_hba.conf"
