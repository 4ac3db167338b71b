#!/bin/sh
# Says what is missing to build, test and run the demo, as the one line that installs it. Installs nothing.
# Arguments name further commands that the caller is about to use; `node:nodejs` is one whose package has another name, and `gst/playbin:PACKAGE` is
# an element of GStreamer's.
set -eu

root="$(cd "$(dirname "$0")/.." && pwd)"
packages=
status=0

has() {
    case "$1" in
    gst/*) gst-inspect-1.0 --exists "${1#gst/}" 2>/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}
need() { packages="$packages $1"; }

rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
if ! has cargo || ! has rustc; then
    echo "Rust is missing: get rustup from https://rustup.rs, then: rustup toolchain install stable" >&2
    status=1
else
    have=$(rustc --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n%s\n' "$have" "$rust" | sort -V | head -n 1)" != "$rust" ]; then
        echo "Rust $have is too old, $rust is the oldest that will do: rustup update stable" >&2
        status=1
    fi
fi

has make || need make
if ! has cc; then
    need gcc
    need libc6-dev
elif ! echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; then
    need libc6-dev
fi
if [ -z "${ENVOY:-}" ] && ! has envoy; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
fi
if [ -z "${REDIS_SERVER:-}" ] && ! has redis-server; then
    has redis-check-rdb || need redis-tools
fi
for wanted in "$@"; do
    has "${wanted%%:*}" || need "${wanted##*:}"
done

if [ -n "$packages" ]; then
    echo "Missing on this machine. On Debian or Ubuntu, as root: apt-get install -y$packages" >&2
    status=1
fi
exit $status
