#!/usr/bin/env bash
# Runs every fuzz target for a while, one after the other: scripts/fuzz.sh 30s
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime=${1:-30s}
count=0
# A target is a function; go test fuzzes one function of one package at a time.
while IFS=: read -r file target; do
    package=./$(dirname "$file")
    echo "== $target in $package for $fuzztime"
    go test "$package" -run='^$' -fuzz="^$target\$" -fuzztime="$fuzztime"
    count=$((count + 1))
done < <(grep -r --include='*_test.go' --exclude-dir=.local -o -E '^func Fuzz[A-Za-z0-9_]*' . |
    sed -e 's#^\./##' -e 's#:func #:#' | sort)
echo "$count fuzz targets ran without a failure"
