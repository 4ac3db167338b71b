#!/bin/sh
# Prints the path of hls.js, the player that tests run in a browser; everything else goes to stderr.
# To update: change the version, and set the sum to the output of `sha256sum` for the package.
set -eu

file=dist/hls.min.js
place=$("$(dirname "$0")/get-npm-package.sh" hls.js 1.7.4 \
    e4ab3d5d13f7cca9ef241d098f39686e19fd451831ba07dc9943482fd5ff75c7 "$file")
echo "$place/$file"
