#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# qcow2 side by side with the raw file driver and QEMU in one run, as ratios.
#
#   bench/qcow2.sh [BUILD-DIR [GIB]]
#
# Needs qemu-utils and room for GIB (8) and 8 more in /dev/shm.  Each pair runs
# three times, alternating; the best of each counts.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build}
gib=${2:-8}
blk=$build/bench/bench-blk
img=$build/tools/bg-img
shm=$(mktemp -d /dev/shm/blockgraph-bench.XXXXXX)
trap 'rm -rf "$shm"' EXIT
runs=3

# The node of an image, with further options of it.
node() {
    echo "qcow2,file.driver=file,file.filename=$shm/$1,${2:-read-only=off}"
}

# Requests per second of bench-blk.
ours() {
    "$blk" "$@" | awk '{ print $1 }'
}

# qemu-img bench, requests per second: count, request size, then arguments.
qemu_rate() {
    local count=$1 size=$2
    shift 2
    qemu-img bench -c "$count" -s "$size" -d 64 "$@" | awk -v n="$count" \
        '/Run completed/ { printf "%.0f\n", n / $4 }'
}

# Makes an image anew, then does the rest.
fresh() {
    rm -f "$shm/fresh"
    qemu-img create -q -f qcow2 "$shm/fresh" "$1"
    shift
    "$@"
}

# Thousandths of a command per second.
per_second() {
    local start=$EPOCHREALTIME
    "$@" >/dev/null
    awk -v a="$start" -v b="$EPOCHREALTIME" \
        'BEGIN { printf "%.0f\n", 1000 / (b - a) }'
}

packed() {
    rm -f "$shm/packed"
    qemu-img create -q -f qcow2 -o compression_type=zstd "$shm/packed" 1G
    per_second "$@" "$img" convert -n -W -c -f raw -O qcow2 "$shm/text" \
        "$shm/packed"
}

# row NAME TARGET: reads "ours theirs" lines, prints the best of each.
row() {
    awk -v name="$1" -v target="$2" '
        { if ($1 > a) a = $1; if ($2 > b) b = $2 }
        END { printf "%-46s %10d %10d  %5.2f  (target %s)\n",
                     name, a, b, a / b, target }'
}

# pair NAME TARGET "OUR COMMAND" "THEIR COMMAND"
pair() {
    for _ in $(seq $runs); do
        echo "$(eval "$3") $(eval "$4")"
    done | row "$1" "$2"
}

qemu-img create -q -f qcow2 -o preallocation=full "$shm/full" "${gib}G"
qemu-img create -q -f qcow2 -o preallocation=metadata "$shm/sparse" 64G
cat=l2-cache-size=$((gib << 20))

printf '%-46s %10s %10s  %5s\n' "requests per second" ours peer ratio
# The same file as raw: the same pages, a little more than one image of them.
pair "random 4k reads, depth 64 / raw file" 0.9 \
    "ours -r -c 1000000 -o $(node full "$cat")" \
    "ours -r -c 1000000 $shm/full"
# qemu-img bench steps by the size of a request unless told; so do both here.
pair "4k reads, depth 64 / qemu-img bench" 1.5 \
    "ours -c 1000000 -o $(node full "$cat")" \
    "qemu_rate 500000 4096 -f qcow2 $shm/full"
pair "4k writes, empty image / qemu-img bench" 2 \
    "fresh 4G ours -w -c 500000 -o $(node fresh)" \
    "fresh 4G qemu_rate 500000 4096 -w -f qcow2 $shm/fresh"
pair "sequential 64k allocating writes / raw file" 0.8 \
    "fresh 4G ours -w -s 65536 -c 30000 -o $(node fresh)" \
    "rm -f $shm/r; qemu-img create -q -f raw $shm/r 4G; \
     ours -w -s 65536 -c 30000 $shm/r"
pair "64k steps, 1 MiB of cache for 64G / qemu-img" 2 \
    "ours -r -c 300000 -o $(node sparse l2-cache-size=1M)" \
    "qemu_rate 100000 4096 -S 131072000 --image-opts \
     driver=qcow2,l2-cache-size=1M,file.filename=$shm/sparse"
rm -f "$shm/full" "$shm/fresh" "$shm/r"

# A GiB of words, more or less.
awk 'BEGIN { srand(1); while (n < 67108864) {
         s = sprintf("%x line %d of text %s\n", rand() * 4294967296, n,
                     substr("the block layer holds a graph", rand() * 20, 9))
         n += length(s); printf "%s", s } }' >"$shm/part"
for _ in $(seq 16); do cat "$shm/part"; done | head -c 1G >"$shm/text"
rm "$shm/part"
pair "compressed writes, 2 cores / 1 core (mHz)" 1.7 \
    "packed env" "packed taskset -c 0"

rm -f "$shm/text" "$shm/packed"
qemu-img create -q -f qcow2 "$shm/huge" 16T
printf '%-46s %s  (target 10 ms, 4096 KiB)\n' "open of 16 TiB" \
    "$("$build/bench/bench-open" "$(node huge)")"
