#!/bin/sh
# Prints what CHANGELOG.md says of a version, for the message of its tag: `tag-notes.sh 0.2.0`, by default Cargo.toml's.
set -eu
cd "$(dirname "$0")/../.."

fail() { echo "tag-notes.sh: $*" >&2; exit 1; }

version=${1:-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)}
# From its heading, `## 0.2.0 - DATE`, to the next.
notes=$(awk -v wanted="$version" '/^## /{inside = $2 == wanted; next} inside' CHANGELOG.md)
[ -n "$notes" ] || fail "CHANGELOG.md has no notes below '## $version'; write them, or name another version"
printf 'streamgate %s\n%s\n' "$version" "$notes"
