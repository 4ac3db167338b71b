#!/usr/bin/env bash
# Builds the program that releases ship: the same bytes from any folder, given the same Rust and C compilers.
# The program is target/dist/streamgate (or below CARGO_TARGET_DIR), with its line tables.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
sysroot=$(rustc --print sysroot)
commit=$(rustc --version --verbose | sed -n 's/^commit-hash: //p')

# Fetched sources are in folders named after the registry's host.
cargo fetch --locked --quiet
prefixes=("$root=/build" "$(realpath -m "$target")=/build/target" "$sysroot/lib/rustlib/src/rust=/rustc/$commit")
for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    prefixes+=("$registry=/registry")
done

# The caller's flags would change the build. Between arguments cargo wants the byte 1F, which no path has.
flags=$(printf -- '--remap-path-prefix=%s\037' "${prefixes[@]}")
CARGO_ENCODED_RUSTFLAGS=${flags%$'\037'}
CFLAGS=$(printf -- '-ffile-prefix-map=%s ' "${prefixes[@]}")
export CARGO_ENCODED_RUSTFLAGS CFLAGS
exec cargo build --locked --profile dist --bin streamgate
