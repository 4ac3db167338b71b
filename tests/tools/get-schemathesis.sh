#!/bin/sh
# Prints the path of the Python that has schemathesis, which reads the OpenAPI document and tries the service; everything else goes to stderr.
#
# The versions of it and of all that it needs are in schemathesis.txt beside this. It is installed into target/tools once; calls at the same
# time wait for each other.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"
wanted="$here/schemathesis.txt"

fail() { echo "get-schemathesis.sh: $*" >&2; exit 1; }

mkdir -p "$tools"
place="$(cd "$tools" && pwd)/schemathesis"

# A virtual environment can't be moved: it is complete when the list of what it holds lies in it.
exec 9> "$place.lock"
flock 9
if ! cmp -s "$wanted" "$place/installed.txt"; then
    echo "get-schemathesis.sh: getting schemathesis (once, about 40 MB)" >&2
    rm -rf "$place"
    python3 -m venv "$place" >&2 || fail "python3 can't make a virtual environment; on Debian: apt-get install python3-venv"
    "$place/bin/pip" --disable-pip-version-check --quiet install --no-deps --only-binary :all: --requirement "$wanted" >&2 ||
        fail "pip could not install what $wanted lists (its message is above). It takes a package index that can be reached: PyPI, or what PIP_INDEX_URL names"
    "$place/bin/python" -c 'import openapi_spec_validator, schemathesis.cli' || fail "schemathesis is installed and does not run (Python's message is above)"
    cp "$wanted" "$place/installed.txt"
fi
echo "$place/bin/python"
