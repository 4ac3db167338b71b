#!/bin/sh
# Prints the path of a redis-server binary on stdout; everything else goes to stderr.
#
# $REDIS_SERVER if set, else `redis-server` on PATH, else Debian's redis-tools: its redis-check-rdb is the same program
# and serves when it is called redis-server. (Debian's package redis-server would also start a system service.)
set -eu

root="$(cd "$(dirname "$0")/../.." && pwd)"
tools="${CARGO_TARGET_DIR:-$root/target}/tools"

fail() { echo "get-redis.sh: $*" >&2; exit 1; }
serves() { "$1" --version 2>/dev/null | grep -Eqi '^(redis|valkey) server v='; }

if [ -n "${REDIS_SERVER:-}" ]; then
    serves "$REDIS_SERVER" || fail "REDIS_SERVER=$REDIS_SERVER is no Redis server: '$REDIS_SERVER --version' does not say so. Correct it or unset it"
    command -v "$REDIS_SERVER"
    exit 0
fi
if found=$(command -v redis-server) && serves "$found"; then
    echo "$found"
    exit 0
fi
if twin=$(command -v redis-check-rdb); then
    mkdir -p "$tools"
    ln -s "$twin" "$tools/redis-server.$$"
    mv -T "$tools/redis-server.$$" "$tools/redis-server"
    if serves "$tools/redis-server"; then
        echo "$tools/redis-server"
        exit 0
    fi
fi
fail "no redis-server found; on Debian: apt-get install redis-tools. Or name one in REDIS_SERVER"
