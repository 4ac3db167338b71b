#!/bin/sh
# Prints the path of hls.js, the player that tests run in a browser; all else goes to stderr.
#
# It comes from npm's registry (or the one in npm_config_registry) as it is published there, and is put in target/tools once; calls at the
# same time wait for each other. To renew: change the version, and the sum to what `sha256sum` says of the package.
set -eu

version=1.7.4
sum=e4ab3d5d13f7cca9ef241d098f39686e19fd451831ba07dc9943482fd5ff75c7
here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"
registry="${npm_config_registry:-https://registry.npmjs.org}"

fail() { echo "get-hls-js.sh: $*" >&2; exit 1; }

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/hls.js-$version"

exec 9> "$place.lock"
flock 9
if [ ! -f "$place/hls.min.js" ]; then
    echo "get-hls-js.sh: getting hls.js $version (once, about 8 MB)" >&2
    work=$(mktemp -d "$tools/getting-hls-js.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    curl -fsSL -o "$work/package.tgz" "${registry%/}/hls.js/-/hls.js-$version.tgz" >&2 ||
        fail "npm's registry could not be reached (curl's message is above); npm_config_registry names another"
    echo "$sum  $work/package.tgz" | sha256sum --check --status || fail "hls.js $version is not what it was: its SHA-256 is another"
    tar -xzf "$work/package.tgz" -C "$work" package/dist/hls.min.js
    mkdir -p "$place"
    mv "$work/package/dist/hls.min.js" "$place/hls.min.js"
fi
echo "$place/hls.min.js"
