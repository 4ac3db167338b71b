#!/bin/sh
# Prints the path of axe-core, which checks web pages for accessibility; everything else goes to
# stderr. To update: change the version, and set the sum to the output of `sha256sum` for the
# package.
set -eu

file=axe.min.js
place=$("$(dirname "$0")/get-npm-package.sh" axe-core 4.14.1 \
    e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745 "$file")
echo "$place/$file"
