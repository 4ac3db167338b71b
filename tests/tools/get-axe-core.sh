#!/bin/sh
# Prints the path of axe-core, which looks for barriers in web pages; all else goes to stderr.
# To renew: change the version, and the sum to what `sha256sum` says of the package.
set -eu

file=axe.min.js
place=$("$(dirname "$0")/get-npm-package.sh" axe-core 4.14.1 \
    e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745 "$file")
echo "$place/$file"
