#!/bin/sh
# Runs the shell block below 'With compose' in docs/containers.md unchanged, and checks that the 4th
# stream is refused, before and after a streamgate is killed. Needs a Docker engine with access to
# the images, docker compose or docker-compose (COMPOSE says which), and the ports named there.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "compose-check: $*" >&2; exit 1; }

docker info >/dev/null 2>&1 || fail "no Docker engine answers: 'docker info' says why"
[ -n "${COMPOSE:-}" ] || { docker compose version >/dev/null 2>&1 && COMPOSE='docker compose'; } || COMPOSE=docker-compose
if [ "$COMPOSE" != 'docker compose' ]; then
    # docker-compose 1.29, for which the page's lines work too.
    stand_in='docker() { case "$1" in compose) shift; $COMPOSE "$@" ;; *) command docker "$@" ;; esac; }'
    eval "$stand_in"
fi

script=$(awk '/^## With compose$/ {below = 1} below && /^```$/ {exit} inside {print} below && /^```sh$/ {inside = 1}' docs/containers.md)
[ -n "$script" ] || fail "docs/containers.md has no shell block below 'With compose'"
# On a busy machine Redis may have to wait for a processor, and a slow Redis is not part of this
# check.
export STORE_TIMEOUT=200ms COMPOSE
told=$(mktemp)
lines=$(mktemp)
end() {
    status=$?
    [ "$status" = 0 ] || { cat "$told"; docker compose -f deploy/compose.yaml down >/dev/null 2>&1 || true; }
    rm -f "$told" "$lines"
}
trap end EXIT
trap 'exit 1' INT TERM
# In a separate shell, which ends at the first line that fails.
printf '%s\n%s\n' "${stand_in:-}" "$script" >"$lines"
sh -eu "$lines" >"$told" 2>&1 || fail 'a line of the page failed'
refused=$(grep -c '^HTTP/1.1 429' "$told") || true
[ "$refused" = 2 ] || fail "the page promises two 429, there were $refused"
echo "ok    the page's lines, by $COMPOSE, start it, and two 4th streams are refused, before and after a streamgate is killed"
