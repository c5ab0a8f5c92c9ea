#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Proof that the oracles see: each planted bug of tests/scenario/planted.txt
# must be found by its scenario within two minutes of seeds.
#
#     sim-planted.sh BG_SIM       (of a build with -Dplanted_bugs=true)
set -uo pipefail

bg_sim=$(realpath "$1") || exit 2
cd "$(dirname "$0")/.." || exit 2
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
found=0
missed=0

while read -r number scenario what; do
    start=$(date +%s%N)
    "$bg_sim" run "$scenario" --planted "$number" --seconds 120 --jobs 2 \
        --failures 1 --no-shrink --out "$out" >"$out/log" 2>&1
    status=$?
    end=$(date +%s%N)
    # Scenarios change; a file that shows the bug no more is made anew with
    #   bg-sim run SCENARIO --planted N --failures 1
    for file in tests/scenario/planted-"$(printf %02d "$number")"-*.bgs; do
        "$bg_sim" replay "$file" --planted "$number" >"$out/replay" 2>&1
        [ $? -eq 1 ] || echo "note: $file does not show bug $number"
    done
    ms=$(((end - start) / 1000000))
    oracle=$(sed -n 's/^oracle: *//p' "$out/log" | head -n 1)
    if [ $status -eq 1 ]; then
        found=$((found + 1))
        printf '%2d  %3d.%03d s  %-9s %-12s %s\n' "$number" \
            $((ms / 1000)) $((ms % 1000)) \
            "$scenario" "$oracle" "$what"
    else
        missed=$((missed + 1))
        printf '%2d  MISSED    %-9s %s (status %d)\n' "$number" "$scenario" \
            "$what" $status
        tail -n 3 "$out/log"
    fi
done < <(grep -v '^#' tests/scenario/planted.txt)

echo "planted bugs: $found found, $missed missed"
[ $missed -eq 0 ]
