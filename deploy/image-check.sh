#!/bin/sh
# Builds the image, runs it and queries it with the lines of docs/containers.md, then in a hardened
# way: no write access, no capability, a user that the image doesn't know. Needs a Docker engine
# with access to the images named in Dockerfile, and port 8080.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "image-check: $*" >&2; exit 1; }
say() { echo "ok    $*"; }

docker info >/dev/null 2>&1 || fail "no Docker engine answers: 'docker info' says why"

# The first shell block after its heading.
lines=$(awk '/^## In a container$/ {below = 1} below && /^```$/ {exit} inside {print} below && /^```sh$/ {inside = 1}' docs/containers.md)
[ "$(printf '%s\n' "$lines" | grep -c .)" = 4 ] || fail "docs/containers.md has no four lines below 'In a container'"

stranger=''
configured=''
end() {
    status=$?
    [ "$status" = 0 ] || { docker ps --all && docker logs "${stranger:-${configured:-streamgate}}"; } >&2 || true
    docker rm --force streamgate ${configured:+"$configured"} ${stranger:+"$stranger"} >/dev/null 2>&1 || true
}
if docker inspect streamgate --type container >/dev/null 2>&1; then
    fail "there is a container called streamgate; end it first: docker rm --force streamgate"
fi
trap end EXIT
trap 'exit 1' INT TERM

answer=$(printf '%s\n' "$lines" | sh -eu)
printf '%s\n' "$answer" | grep -q '"session":"tv".*"active":1,"limit":3' || fail "the page's lines end with: $answer"
[ -z "$(docker ps --quiet --filter 'name=^streamgate$')" ] || fail "the page's lines end, and the container still runs"
say "the page's lines build it, run it, get an answer, and end it"

# A world-readable folder, unlike one from mktemp.
mkdir -p target/image-check/etc
echo 'limits: {default: 7}' >target/image-check/etc/streamgate.yaml
chmod -R a+rX target/image-check
configured=$(cd target/image-check && docker run --detach --volume "$PWD/etc:/etc/streamgate:ro" streamgate serve --config /etc/streamgate/streamgate.yaml)
tries=0
until told=$(docker exec "$configured" streamgate sessions alice 2>&1); do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "it doesn't say who watches: $told"
    sleep 0.5
done
[ "$told" = 'alice: 0 of 7 streams in use' ] || fail "with a file that says 7 it says: $told"
say 'a file in a mounted folder is in force, as it says itself'

stranger=$(docker run --detach --read-only --user 12345:12345 --cap-drop ALL --security-opt no-new-privileges \
    --publish 127.0.0.1::8080 streamgate)
tries=0
until [ "$(docker inspect --format '{{.State.Health.Status}}' "$stranger")" = healthy ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "it does not become healthy"
    sleep 0.5
done
curl -fsS -o /dev/null -X PUT "http://$(docker port "$stranger" 8080/tcp | head -n 1)/v1/users/alice/sessions/tv"
say 'with --read-only as user 12345 it becomes healthy, and serves'

docker stop --time 20 "$stranger" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$stranger")
[ "$code" = 0 ] || fail "asked to end, it exits with $code"
say 'asked to end, it drains and exits with 0'

# Newest first; everything below our one COPY is the base.
docker history --human=false --format '{{.Size}} {{.CreatedBy}}' streamgate |
    awk '{bytes += $1} / COPY /{found = 1; exit} END {if (!found) exit 1; printf "ok    our own layers have %.1f MB\n", bytes / 1e6}' ||
    fail 'docker history shows no layer of ours'
