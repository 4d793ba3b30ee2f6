#!/usr/bin/env bash
# Gets PostgreSQL's own tests (src/test/regress and src/test/isolation) from Debian's source package.
#
#   internal/regress/suite.sh MAJOR [VERSION]
#
# The package has the version of the installed server; where the archive does not have that any more (or VERSION names
# another one), the server of the newest version is fetched too and unpacked, not installed: tests and server have to be of
# one minor version. Prints the directory of the server's programs and that of the tests. What is there already is not
# fetched again. The system's configuration of apt is read and stays as it is; `make clean` removes all of it.
set -euo pipefail
cd "$(dirname "$0")/../.."

major=$1 wanted=${2:-}
root=$PWD/.local/regress
mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
log=$root/suite.log
exec 9>"$root/suite.lock"
flock 9 # Another make may be doing the same.

fail() {
    echo "$1; $log may say more" >&2
    exit 1
}

for program in apt-get dpkg-source gcc; do
    command -v $program >/dev/null || fail "PostgreSQL's tests come from Debian's source packages: $program is missing (packages dpkg-dev and gcc)"
done

installed=$(dpkg-query -W -f '${Version}' "postgresql-$major" 2>/dev/null || true)

# private makes a configuration of apt that also knows the sources of packages, and leaves the system's alone.
private() {
    local from
    rm -rf "$root/apt/sources" && mkdir -p "$root/apt/sources"
    for from in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ ! -s $from ]] || sed -n 's/^deb\(-src\)\? \(.*\)/deb \2\ndeb-src \2/p' "$from" >"$root/apt/sources/$(basename "${from%.list}").list"
    done
    for from in /etc/apt/sources.list.d/*.sources; do
        [[ ! -e $from ]] || sed 's/^Types:.*/Types: deb deb-src/' "$from" >"$root/apt/sources/$(basename "$from")"
    done
    cat >"$root/apt/apt.conf" <<CONF
Dir::State::Lists "$root/apt/lists";
Dir::Cache "$root/apt/cache";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$root/apt/sources";
APT::Sandbox::User "";
CONF
    export APT_CONFIG=$root/apt/apt.conf
    apt-get -q update >>"$log" 2>&1 || true # A repository without sources is no fault; a missing package is noticed below.
}

# versions prints those of the server that the archive has, the newest first.
versions() { apt-cache madison "postgresql-$major" | awk '$NF != "Sources" { print $3 }' | uniq; }

# server DIRECTORY prints where the server is that belongs to the tests in DIRECTORY.
server() {
    local unpacked=$1/server/usr/lib/postgresql/$major
    if [[ -e $unpacked ]]; then echo "$unpacked"; else echo "/usr/lib/postgresql/$major"; fi
}

# unpack DIRECTORY PACKAGE VERSION
unpack() {
    apt-get -q download "$2=$3" && mkdir -p "$1" && dpkg-deb -x "$2"_*.deb "$1"
}

# fetch VERSION DIRECTORY puts tests, regress.so and, unless it is the installed one, the server into DIRECTORY.
fetch() {
    local version=$1 to=$2 work=$root/unfinished
    rm -rf "$work" && mkdir -p "$work/fetched"
    (
        cd "$work/fetched" &&
            apt-get -q source --only-source "postgresql-$major=$version" &&
            mkdir ../test && mv postgresql-"$major"-*/src/test/{regress,isolation} ../test/ &&
            unpack ../headers "postgresql-server-dev-$major" "$version" || exit 1
        if [[ $version != "$installed" ]]; then
            unpack ../server "postgresql-$major" "$version" && unpack ../server "postgresql-client-$major" "$version"
        fi
    ) >>"$log" 2>&1 </dev/null || return 1
    gcc -O1 -fPIC -shared -w -I"$work/headers/usr/include/postgresql/$major/server" \
        -o "$work/test/regress/regress.so" "$work/test/regress/regress.c" >>"$log" 2>&1 || return 1
    local libraries
    libraries=$(server "$work")/lib # contrib/spi is there
    cp "$libraries/refint.so" "$libraries/autoinc.so" "$work/test/regress/" 2>>"$log" || return 1
    rm -rf "$work/fetched" "$work/headers" "$to"
    mv "$work" "$to" # The directory appears whole.
}

# show prints what is in DIRECTORY, and ends.
show() {
    printf '%s\n%s\n' "$(server "$1")/bin" "$1/test"
    exit
}

: >"$log"
version=${wanted:-$installed}
if [[ -n $version && -e $root/$version ]]; then
    show "$root/$version"
fi
private
if [[ -n $version ]]; then
    echo "getting PostgreSQL's tests, version $version" >&2
    fetch "$version" "$root/$version" && show "$root/$version"
    [[ -z $wanted ]] || fail "the archive does not have postgresql-$major of version $wanted"
fi
for version in $(versions); do
    if [[ ! -e $root/$version ]]; then
        echo "getting PostgreSQL $version with its tests" >&2
        fetch "$version" "$root/$version" || continue
    fi
    show "$root/$version"
done
fail "the archive has no postgresql-$major together with its tests"
