#!/usr/bin/env bash
# Shows that `make dist` makes the same bytes in another folder, and that what it makes installs on a bare Debian with systemd.
# For the second part it has to be root, and a container has to start here; what can't be checked is in target/dist-check/not-checked.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$PWD/target/dist-check
out=$PWD/target/archives
root=$work/root
mkdir -p "$work"
rm -f "$work/not-checked"
other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
trap 'exit 1' INT TERM

fail() { echo "dist-check.sh: $*" >&2; exit 1; }
say() { echo "ok    $*"; }
not_checked() { echo "NOT CHECKED: $*" >&2; echo "$*" >>"$work/not-checked"; exit 0; }

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
deploy/dist/dist.sh

# The same files in a folder of another length, with a target folder of its own.
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - | tar --extract --directory "$other"
mkdir -p "$other/target"
ln -s "$PWD/target/tools" "$other/target/tools"
(unset CARGO_TARGET_DIR && "$other/deploy/dist/dist.sh")
if ! diff "$out/SHA256SUMS" "$other/target/archives/SHA256SUMS" >&2; then
    rm -rf "$work/other"
    mv "$other/target/archives" "$work/other"
    fail "built in another folder, these files differ; compare those in $out with those in $work/other, with diffoscope"
fi
say "built in $PWD and in $other, all files are equal"

[ "$(id -u)" = 0 ] || not_checked 'the installation on a bare Debian, for which make dist-check has to be root'
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
bare=$work/bare
if [ ! -e "$bare/complete" ]; then
    rm -rf "$bare"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus "$codename" "$bare" >"$work/debootstrap.log" 2>&1 ||
        not_checked "the installation on a bare Debian: debootstrap fails; $work/debootstrap.log says why"
    touch "$bare/complete"
fi
rm -rf "$root"
cp --archive "$bare" "$root"

# The lines of the page, to be run inside.
block() { awk -v heading="## $1" '$0 == heading {below = 1} below && /^```$/ {exit} inside {print} below && /^```sh$/ {inside = 1}' docs/install.md; }
check=$root/root/check
mkdir -p "$check/downloads"
cp "$out"/* "$check/downloads/"
block 'The Debian package' >"$check/package" # "The Debian package$/
block 'The archive' >"$check/archive" # "The archive$/
cp deploy/dist/dist-check-inside.sh "$check/inside"
cat >"$root/etc/systemd/system/check.service" <<'END'
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/root/check/inside >/root/check/log 2>&1 && touch /root/check/passed'
ExecStopPost=systemctl --no-block --force poweroff
[Install]
WantedBy=multi-user.target
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../check.service "$root/etc/systemd/system/multi-user.target.wants/check.service"

# Starts the container; what `inside` does ends it.
boot() {
    rm -f "$check/passed" "$check/log"
    timeout --kill-after 10 300 systemd-nspawn --boot --quiet --directory "$root" --private-network --register=no --keep-unit \
        >"$work/boot.log" 2>&1 </dev/null || true
    [ -e "$check/log" ] || not_checked "the installation on a bare Debian: no container starts here; $work/boot.log says why"
    [ -e "$check/passed" ] || { cat "$check/log" >&2; fail 'the check in the container failed; its output is above'; }
    cat "$check/log"
}

echo installed >"$check/stage"
boot
echo rebooted >"$check/stage"
boot
say 'the package and the archive install as docs/install.md says'
