#!/bin/sh
# Prints the path of the folder that holds prometheus and promtool, 2.42 or newer; everything else goes to stderr.
set -eu
dirname "$("$(dirname "$0")/get-deb.sh" prometheus prometheus)"
