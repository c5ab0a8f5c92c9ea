#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bg-img convert side by side with qemu-img convert in one run, as ratios.
#
#   bench/convert.sh [BUILD-DIR [DIRECTORY [GIB]]]
#
# Needs qemu-utils and room for about 3 times GIB (2) in DIRECTORY; without one,
# in a tmpfs of its own, which needs root.  Each pair runs five times,
# alternating; the best of each counts.  Whole processes are timed.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build}
gib=${3:-2}
bg_img=$build/tools/bg-img
dir=$(mktemp -d "${2:-/tmp}/blockgraph-convert.XXXXXX")
trap 'rm -rf "$dir"' EXIT
if [ -z "${2:-}" ]; then
    mount -t tmpfs blockgraph-convert "$dir"
    trap 'cd /; umount "$dir" || umount -l "$dir"; rm -rf "$dir"' EXIT
fi
runs=5

# Seconds that pass, and those of processors.
seconds() {
    local TIMEFORMAT='%R %U %S'
    { time "$@" >/dev/null; } 2>&1 | awk '{ print $1, $2 + $3 }'
}

# convert PROGRAM FORMAT FORMAT SOURCE OPTION...
convert() {
    local program=$1 from=$2 to=$3 source=$4
    shift 4
    rm -f "$dir/copy"
    seconds "$program" convert "$@" -f "$from" -O "$to" "$dir/$source" \
        "$dir/copy"
}

# pair NAME TARGET FORMAT FORMAT SOURCE OPTION...: the times and the ratio.
pair() {
    local name=$1 target=$2
    shift 2
    for _ in $(seq $runs); do
        echo "$(convert "$bg_img" "$@") $(convert qemu-img "$@")"
    done | awk -v name="$name" -v target="$target" '
        NR == 1 || $1 < a { a = $1 } NR == 1 || $3 < b { b = $3 }
        NR == 1 || $2 < c { c = $2 } NR == 1 || $4 < d { d = $4 }
        END { printf "%-40s %7.3f %7.3f  %5.2f %7.3f %7.3f  %5.2f  (%s)\n",
                     name, a, b, b / a, c, d, d / c, target }'
}

head -c "${gib}G" /dev/urandom >"$dir/raw"
qemu-img convert -f raw -O qcow2 "$dir/raw" "$dir/qcow2"

printf '%-40s %7s %7s  %5s %7s %7s  %5s  %s\n' seconds ours peer ratio \
    'CPU' peer ratio '(target)'
pair "raw to qcow2" 1.5 raw qcow2 raw
pair "qcow2 to raw" 1.5 qcow2 raw qcow2
pair "raw to raw" - raw raw raw
pair "qcow2 to qcow2" - qcow2 qcow2 qcow2
pair "raw to qcow2, -W" - raw qcow2 raw -W
pair "qcow2 to raw, -W" - qcow2 raw qcow2 -W
