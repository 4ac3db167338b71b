#!/bin/sh
# Builds the front and prints its path; everything else goes to stderr.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
target="${CARGO_TARGET_DIR:-$here/../../target}/limitador"
cargo build --quiet --locked --release --manifest-path "$here/Cargo.toml" --target-dir "$target" >&2
echo "$(cd "$target" && pwd)/release/limitador-front"
