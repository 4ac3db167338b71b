#!/bin/sh
# Prints the folder of an npm package; everything else goes to stderr.
#
#   get-npm-package.sh NAME VERSION SHA256 [FILE...]
#
# The package comes from npm's registry (or the one in npm_config_registry) as published, and is unpacked below
# target/tools once: whole, or only the files that are named. Calls at the same time wait for each other.
set -eu

name=$1 version=$2 sum=$3
shift 3
here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"
registry="${npm_config_registry:-https://registry.npmjs.org}"

fail() { echo "get-npm-package.sh: $*" >&2; exit 1; }

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/$name-$version"

exec 9> "$place.lock"
flock 9
if [ ! -d "$place" ]; then
    echo "get-npm-package.sh: getting $name $version (once)" >&2
    work=$(mktemp -d "$tools/getting-$name.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    curl -fsSL -o "$work/package.tgz" "${registry%/}/$name/-/$name-$version.tgz" >&2 ||
        fail "could not reach npm's registry (curl's message is above); npm_config_registry names another"
    echo "$sum  $work/package.tgz" | sha256sum --check --status || fail "$name $version has another SHA-256 than expected"
    for file; do
        set -- "$@" "package/$file"
        shift
    done
    tar -xzf "$work/package.tgz" -C "$work" "${@:-package}"
    mv "$work/package" "$place"
fi
echo "$place"
