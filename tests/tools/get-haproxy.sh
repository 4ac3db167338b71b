#!/bin/sh
# Prints the path of HAProxy, with the libraries that Debian's needs; everything else goes to stderr.
exec "$(dirname "$0")/get-deb.sh" haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
