#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# NBD servers side by side: this one, nbdkit's file plugin, and
# qemu-storage-daemon; unix sockets, a raw disk on tmpfs.
#
#     bench/nbd.sh BUILD_DIR [SECONDS [MIB]]
#
# Each figure is the median of several runs, the servers taking turns.  fio's nbd
# engine does random reads of 4 KiB; nbdcopy reads all to nowhere, which is so
# short that one run says little.
set -euo pipefail

build=$(cd "$1" && pwd)
seconds=${2:-3}
mib=${3:-2048}
dir=$(mktemp -d /dev/shm/bench-nbd.XXXXXX)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$dir"
}
trap cleanup EXIT

dd if=/dev/urandom of="$dir/disk" bs=1M count="$mib" status=none

start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" &
    pids+=($!)
    for _ in $(seq 100); do
        if [ -S "$dir/$name" ]; then
            return
        fi
        sleep 0.05
    done
    echo "$name did not start" >&2
    exit 1
}

servers=(ours)
start ours "$build/tools/bg-nbd" -t -e 0 -r -f raw -x '' -k "$dir/ours" "$dir/disk"
if command -v nbdkit >/dev/null; then
    start nbdkit nbdkit -f -r -U "$dir/nbdkit" file "$dir/disk"
    servers+=(nbdkit)
fi
if command -v qemu-storage-daemon >/dev/null; then
    start qsd qemu-storage-daemon \
        --blockdev "driver=file,node-name=f,filename=$dir/disk,read-only=on,aio=io_uring" \
        --blockdev driver=raw,node-name=d,file=f,read-only=on \
        --nbd-server "addr.type=unix,addr.path=$dir/qsd,max-connections=0" \
        --export type=nbd,id=e,node-name=d,name=
    servers+=(qsd)
fi

fio_reads() { # NAME DEPTH
    (cd "$dir" && fio --name=r --ioengine=nbd --rw=randread --bs=4k --iodepth="$2" \
        --uri="nbd+unix:///?socket=$dir/$1" --time_based --runtime="$seconds" \
        --size="${mib}M" --output-format=json --output="$dir/json" >/dev/null 2>&1)
    python3 -c 'import json, sys
print(round(json.load(open(sys.argv[1]))["jobs"][0]["read"]["iops"]))' "$dir/json"
}

copy() { # NAME
    local begin end
    begin=$(date +%s%N)
    nbdcopy "nbd+unix:///?socket=$dir/$1" null:
    end=$(date +%s%N)
    echo $((mib * 1000000000 / (end - begin)))
}

median() { # RUNS
    sort -n | sed -n $((($1 + 1) / 2))p
}

table() { # RUNS TITLE UNIT COMMAND...
    local runs=$1 title=$2 unit=$3 name run
    shift 3
    printf '%s (%s)\n' "$title" "$unit"
    for run in $(seq "$runs"); do
        for name in "${servers[@]}"; do
            "${@/NAME/$name}" >>"$dir/result.$name"
        done
    done
    local ours
    ours=$(median "$runs" <"$dir/result.ours")
    for name in "${servers[@]}"; do
        local figure
        figure=$(median "$runs" <"$dir/result.$name")
        printf '  %-8s %10d   ours is %s times that\n' "$name" "$figure" \
            "$(python3 -c "print('%.2f' % ($ours / max($figure, 1)))")"
        rm "$dir/result.$name"
    done
}

table 3 'random reads of 4 KiB, depth 64' 'a second' fio_reads NAME 64
table 3 'random reads of 4 KiB, depth 1' 'a second' fio_reads NAME 1
table 11 "nbdcopy of $mib MiB to null" 'MiB a second' copy NAME
