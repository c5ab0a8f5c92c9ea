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

scripts/install-deps.sh test

if [ ! -f build/build.ninja ]; then
    meson setup build --werror
else
    meson configure build -Dtests=true
fi
ninja -C build
meson test -C build --no-rebuild --print-errorlogs "$@"
