#!/bin/sh
# Prints the folder that holds npx; everything else goes to stderr.
#
# The one on PATH, else the one in npm's own package: Debian's package npm would install hundreds of others.
# To renew: change the version, and the sum to what `sha256sum` says of the package.
set -eu

if found=$(command -v npx); then
    dirname "$found"
    exit 0
fi
place=$("$(dirname "$0")/get-npm-package.sh" npm 10.9.2 \
    5cd1e5ab971ea6333f910bc2d50700167c5ef4e66da279b2a3efc874c6b116e4)
# The npx in the package looks for npm elsewhere.
ln -sf npx-cli.js "$place/bin/npx"
chmod +x "$place/bin/npx-cli.js"
echo "$place/bin"
