#!/bin/sh
# Prints the path of nginx; everything else goes to stderr.
exec "$(dirname "$0")/get-deb.sh" nginx nginx
