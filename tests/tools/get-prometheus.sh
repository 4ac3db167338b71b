#!/bin/sh
# Prints the path of the folder that holds prometheus and promtool; everything else goes to stderr.
#
# That of both on PATH, else what Debian's package prometheus holds, unpacked below target/tools once. It isn't installed: that would also start a
# service at port 9090, and one that watches the machine. Calls at the same time wait for each other.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"

fail() { echo "get-prometheus.sh: $*" >&2; exit 1; }
works() { "$1/prometheus" --version >/dev/null 2>&1 && "$1/promtool" --version >/dev/null 2>&1; }

if found=$(command -v promtool) && works "$(dirname "$found")"; then
    dirname "$found"
    exit 0
fi

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/prometheus"

exec 9> "$place.lock"
flock 9
if ! works "$place/usr/bin"; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "prometheus and promtool are not on PATH, and this is no Debian or Ubuntu to get them from; 2.42 or newer will do (https://prometheus.io/download)"
    echo "get-prometheus.sh: getting Debian's prometheus (once, about 20 MB)" >&2
    work=$(mktemp -d "$tools/getting-prometheus.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download prometheus >&2) ||
        fail "apt-get could not download prometheus (its message is above); as root: apt-get update"
    dpkg-deb --extract "$work"/prometheus_*.deb "$work/unpacked"
    works "$work/unpacked/usr/bin" || fail "Debian's prometheus does not run on this machine: '$("$work/unpacked/usr/bin/promtool" --version 2>&1 | head -n 1)'"
    rm -rf "$place"
    mv "$work/unpacked" "$place"
fi
echo "$place/usr/bin"
