#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Install what is missing, build, run all tests.
#
#   ./test.sh            build in build/ and run every suite
#   ./test.sh NAME...    run only these tests
#
# Needs Debian 12 or later, and root or sudo if packages are missing.
set -euo pipefail
cd "$(dirname "$0")"

case ${1-} in
-h | --help) sed -n '4,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac

scripts/install-deps.sh test

if [ ! -f build/build.ninja ]; then
    meson setup build --werror
else
    meson configure build -Dtests=true
fi
ninja -C build
# To meson it is a success when there is nothing to run.
if ! meson test -C build --no-rebuild --list "$@" | grep ' / ' >/dev/null; then
    echo "$0: no test is called: $*" >&2
    exit 2
fi
meson test -C build --no-rebuild --print-errorlogs "$@"
