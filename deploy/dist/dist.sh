#!/usr/bin/env bash
# What a release ships, below target/archives: an archive, a Debian package, the debug symbols, an SBOM, and SHA-256 sums.
#
# The output is the same to the byte from any folder and at any time, given the same Rust, C compiler and cargo-deb.
# SOURCE_DATE_EPOCH is the time that all files get, by default that of the commit.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "dist.sh: $*" >&2; exit 1; }
say() { echo "dist.sh: $*" >&2; }

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) ||
        fail 'no commit tells the time of the release; set SOURCE_DATE_EPOCH to it, in seconds since 1970'
fi
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
# shellcheck source=deploy/dist/publisher.conf
. deploy/dist/publisher.conf

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
host=$(rustc --version --verbose | sed -n 's/^host: //p')
tools=$PWD/target/tools
out=$PWD/target/archives
name=streamgate-$version-$host
files=$out/$name
rm -rf "$out"
mkdir -p "$files"/{bin,etc/streamgate,systemd} "$files"/share/{man/man1,doc/streamgate} \
    "$files"/share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}

say "building streamgate $version for $host"
deploy/dist/build.sh
built=${CARGO_TARGET_DIR:-target}/dist/streamgate

# The program keeps the names of its functions, for backtraces. Its line tables go into a file that a debugger finds by name.
program=$files/bin/streamgate
symbols=$name.debug
(
    built=$(realpath "$built")
    cd "$out"
    objcopy --only-keep-debug --compress-debug-sections=zlib "$built" "$symbols"
    objcopy --strip-debug --add-gnu-debuglink="$symbols" "$built" "$program"
)
chmod 644 "$out/$symbols"

say 'writing manual, completions, notices and SBOM'
"$program" man "$files/share/man/man1"
"$program" completions bash >"$files/share/bash-completion/completions/streamgate"
"$program" completions zsh >"$files/share/zsh/site-functions/_streamgate"
"$program" completions fish >"$files/share/fish/vendor_completions.d/streamgate.fish"
doc=$files/share/doc/streamgate
deploy/dist/crates.py notices >"$doc/THIRD-PARTY-NOTICES"
deploy/dist/crates.py sbom >"$doc/streamgate.cdx.json"
cp "$doc/streamgate.cdx.json" "$out/$name.cdx.json"
cp LICENSE CHANGELOG.md "$doc/"
cp -r envoy "$doc/"
cp deploy/package/streamgate.yaml "$files/etc/streamgate/"
cp deploy/package/streamgate.service "$files/systemd/"
find "$files" -type f ! -path "$program" -exec chmod 644 {} +
find "$files" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +

say 'packing'
tar --create --directory "$out" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$name" |
    gzip --no-name --best >"$out/$name.tar.gz"

cargo_deb=$tools/bin/cargo-deb
if [ ! -x "$cargo_deb" ]; then
    say 'building cargo-deb (once)'
    # To have it soon counts for more than to have it fast.
    CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --root "$tools" --version 3.8.0 cargo-deb
fi
maintainer=${MAINTAINER:-nobody <nobody@localhost>}
# Debian wants a changelog of the package itself.
cat >"$out/debian-changelog" <<END
streamgate ($version-1) unstable; urgency=medium

  * streamgate $version. changelog.gz says what is new.

 -- $maintainer  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
END
# cargo-deb packs what lies at the same place for every release.
ln -s "$name" "$out/files"
[ -n "$MAINTAINER" ] || say 'publisher.conf names no MAINTAINER: the Debian package says "nobody"'
"$cargo_deb" deb --quiet --compress-system --no-build --no-strip --profile dist --package streamgate --deb-revision 1 \
    --maintainer "$maintainer" --output "$out/"
rm "$out/files" "$out/debian-changelog"
rm -r "$files"

(cd "$out" && sha256sum -- * >SHA256SUMS)
if [ -n "$SIGN" ]; then
    # A command with its arguments.
    # shellcheck disable=SC2086
    (cd "$out" && $SIGN SHA256SUMS)
else
    say 'publisher.conf names no command to SIGN: nothing is signed'
fi
(cd "$out" && wc --bytes -- *)
