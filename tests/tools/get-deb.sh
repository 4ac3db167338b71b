#!/bin/sh
# get-deb.sh PROGRAM PACKAGE [PACKAGE...]: prints the path of a program of Debian's that tests or benches run; everything else goes to stderr.
#
# That on PATH, else one that runs what the packages hold, unpacked below target/tools once. They aren't installed: that would also start their
# services. Calls at the same time wait for each other.
set -eu

program=$1
shift
here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"

fail() { echo "get-deb.sh: $*" >&2; exit 1; }

if found=$(command -v "$program"); then
    echo "$found"
    exit 0
fi

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/$1"

exec 9> "$place.lock"
flock 9
if ! [ -x "$place/bin/$program" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "$program is not on PATH, and this is no Debian or Ubuntu to get it from"
    echo "get-deb.sh: getting Debian's $* (once)" >&2
    work=$(mktemp -d "$tools/getting-$1.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$@" >&2) ||
        fail "apt-get could not download $* (its message is above); as root: apt-get update"
    for package in "$work"/*.deb; do
        dpkg-deb --extract "$package" "$work/unpacked"
    done
    mkdir "$work/unpacked/bin"
    for binary in "$work"/unpacked/usr/bin/* "$work"/unpacked/usr/sbin/*; do
        [ -x "$binary" ] || continue
        wrapper="$work/unpacked/bin/$(basename "$binary")"
        printf '#!/bin/sh\nexport LD_LIBRARY_PATH="$(echo %s/usr/lib/*-linux-gnu)"\nexec %s "$@"\n' "$place" "$place${binary#"$work/unpacked"}" > "$wrapper"
        chmod +x "$wrapper"
    done
    [ -x "$work/unpacked/bin/$program" ] || fail "the packages $* hold no $program"
    rm -rf "$place"
    mv "$work/unpacked" "$place"
fi
echo "$place/bin/$program"
