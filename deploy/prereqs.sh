#!/bin/sh
# Installs what is missing to build, test and run the demo, with apt-get: as root, or by a sudo that
# asks for no password. Elsewhere it prints the line that does so, and fails. It starts no service.
#
# C compiler, headers, make and Rust are always looked for. Arguments name what else the caller
# uses: a command, `node:nodejs` (a command whose package has another name), `gst/playbin:PACKAGE`
# (an element of GStreamer's), or one of the words in `has`. `lists:` stands for apt-get's lists of
# packages.
set -eu

root="$(cd "$(dirname "$0")/.." && pwd)"
packages=
lists=

has() {
    case "$1" in
    gst/*) gst-inspect-1.0 --exists "${1#gst/}" 2>/dev/null ;;
    # Not Debian's python3-minimal, which can't download anything.
    python3) python3 -c 'import ssl, urllib.request, zipfile' 2>/dev/null ;;
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    authorities) [ -n "${SSL_CERT_FILE:-}" ] || [ -d /etc/pki ] || [ -e /etc/ssl/certs/ca-certificates.crt ] ;;
    redis) [ -n "${REDIS_SERVER:-}" ] || command -v redis-server || command -v redis-check-rdb ;;
    lists) ! command -v apt-get || ls /var/lib/apt/lists/*_Packages* ;;
    *) command -v "$1" ;;
    esac >/dev/null 2>&1
}
need() { packages="${packages:+$packages }$1"; }
fail() { echo "$*" >&2; exit 1; }

rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
if ! has cargo || ! has rustc; then
    fail "Rust is missing: get rustup from https://rustup.rs, then: rustup toolchain install stable"
fi
have=$(rustc --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n%s\n' "$have" "$rust" | sort -V | head -n 1)" != "$rust" ]; then
    fail "Rust $have is too old, streamgate needs $rust or newer: rustup update stable"
fi

has make || need make
if ! has cc; then
    need gcc
    need libc6-dev
elif ! echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; then
    need libc6-dev
fi
for wanted in "$@"; do
    if ! has "${wanted%%:*}"; then
        lists=missing
        need "${wanted#*:}"
    fi
done
[ -n "$packages$lists" ] || exit 0

install="apt-get install -y --no-install-recommends $packages"
has apt-get || fail "Missing on this machine, by the names of Debian's packages: $packages"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    fail "Missing on this machine. Run: sudo apt-get update && sudo $install"
fi
echo "Installing with apt-get: ${packages:-the lists of packages}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Its words are arguments.
# shellcheck disable=SC2086
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive $install; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get failed (the end of its output is above). As root: apt-get update && $install"
fi
