#!/bin/sh
# Prints the folder that holds npx; all else goes to stderr.
#
# That on PATH, else npm's own package from its registry (or the one in npm_config_registry), unpacked below target/tools once: Debian's package npm
# would bring some hundreds of others. To renew: change the version, and the sum to what `sha256sum` says of the package.
set -eu

version=10.9.2
sum=5cd1e5ab971ea6333f910bc2d50700167c5ef4e66da279b2a3efc874c6b116e4
here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"
registry="${npm_config_registry:-https://registry.npmjs.org}"

fail() { echo "get-npx.sh: $*" >&2; exit 1; }

if found=$(command -v npx); then
    dirname "$found"
    exit 0
fi

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/npm-$version"

exec 9> "$place.lock"
flock 9
if [ ! -x "$place/bin/npx" ]; then
    echo "get-npx.sh: getting npm $version (once, about 3 MB)" >&2
    work=$(mktemp -d "$tools/getting-npx.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    curl -fsSL -o "$work/package.tgz" "${registry%/}/npm/-/npm-$version.tgz" >&2 ||
        fail "npm's registry could not be reached (curl's message is above); npm_config_registry names another"
    echo "$sum  $work/package.tgz" | sha256sum --check --status || fail "npm $version is not what it was: its SHA-256 is another"
    tar -xzf "$work/package.tgz" -C "$work"
    # What it ships as npx looks for npm elsewhere.
    ln -sf npx-cli.js "$work/package/bin/npx"
    chmod +x "$work/package/bin/npx-cli.js"
    mv "$work/package" "$place"
fi
echo "$place/bin"
