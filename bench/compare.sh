#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Side-by-side figures against fio and qemu-img in one run, printed as ratios.
#
#   bench/compare.sh [BUILD-DIR [DISK-DIR]]
#
# Needs fio and qemu-utils.  Works on a tmpfs (/dev/shm) and, for O_DIRECT, in
# DISK-DIR.  Each pair runs three times, alternating; the best of each counts.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build}
disk_dir=${2:-/var/tmp}
blk=$build/bench/bench-blk
shm=$(mktemp -d /dev/shm/blockgraph-bench.XXXXXX)
disk=$(mktemp -d "$disk_dir/blockgraph-bench.XXXXXX")
trap 'rm -rf "$shm" "$disk"' EXIT
runs=3

head -c 1G /dev/urandom >"$shm/image"
cp "$shm/image" "$disk/image"
sync "$disk/image"

# Requests per second of bench-blk.
ours() {
    "$blk" "$@" | awk '{ print $1 }'
}

# fio's read IOPS: file, depth, direct.
fio_iops() {
    fio --name=x --filename="$1" --rw=randread --bs=4k --iodepth="$2" \
        --direct="$3" --ioengine=io_uring --runtime=3 --time_based \
        --output-format=terse | cut -d';' -f8
}

# qemu-img bench, requests per second: count, then its arguments.
qemu_rate() {
    local count=$1
    shift
    qemu-img bench -c "$count" -s 4096 "$@" | awk -v n="$count" \
        '/Run completed/ { printf "%.0f\n", n / $4 }'
}


# row NAME TARGET: reads "ours theirs" lines, prints the best of each.
row() {
    awk -v name="$1" -v target="$2" '
        { if ($1 > a) a = $1; if ($2 > b) b = $2 }
        END { printf "%-44s %10d %10d  %5.2f  (target %s)\n",
                     name, a, b, a / b, target }'
}

# pair NAME TARGET "OUR COMMAND" "THEIR COMMAND"
pair() {
    for _ in $(seq $runs); do
        echo "$(eval "$3") $(eval "$4")"
    done | row "$1" "$2"
}

printf '%-44s %10s %10s  %5s\n' "requests per second" ours peer ratio
pair "null-co 4k depth 64, callbacks / qemu-img" 5 \
    "ours -c 8000000 -o null-co,size=1G" \
    "qemu_rate 2000000 -d 64 --image-opts driver=null-co,size=1G"
pair "null-co, 2 I/O threads / 1" 1.8 \
    "ours -c 16000000 -t 2 -o null-co,size=1G" \
    "ours -c 8000000 -o null-co,size=1G"
pair "tmpfs random 4k depth 64 / fio io_uring" 1.3 \
    "ours -r -c 1500000 $shm/image" "fio_iops $shm/image 64 0"
pair "tmpfs 4k depth 64 / qemu-img -i io_uring" 2 \
    "ours -c 1500000 $shm/image" \
    "qemu_rate 500000 -d 64 -i io_uring -f raw $shm/image"
pair "tmpfs random 4k depth 1 / fio io_uring" 0.95 \
    "ours -r -d 1 -c 800000 $shm/image" "fio_iops $shm/image 1 0"
pair "disk O_DIRECT random 4k depth 64 / fio" 0.95 \
    "ours -r -D -c 200000 $disk/image" "fio_iops $disk/image 64 1"
echo
"$build/bench/bench-coroutine"
echo
"$build/bench/bench-nodes"
