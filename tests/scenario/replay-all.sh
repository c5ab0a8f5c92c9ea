#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Replay all regression files of this directory: runs that failed once, shrunk
# by bg-sim.  None may fail again, and none may have lost its decisions.
#
#     replay-all.sh BG_SIM
set -u
bg_sim=$1
dir=$(dirname "$0")
failed=0
replayed=0

for file in "$dir"/*.bgs; do
    if ! out=$("$bg_sim" replay "$file" 2>&1); then
        failed=$((failed + 1))
        printf 'FAILED: %s replay %s\n%s\n' "$bg_sim" "$file" "$out"
    fi
    replayed=$((replayed + 1))
done
echo "$replayed files, $failed failed"
[ "$failed" -eq 0 ] && [ "$replayed" -gt 0 ]
