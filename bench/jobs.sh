#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Jobs side by side with qemu-img in one run, as ratios.
#
#   bench/jobs.sh [BUILD-DIR [DIRECTORY [GIB [JOB-OPTIONS [RUNS]]]]]
#
# Needs qemu-utils and room for about 3 times GIB (2) in DIRECTORY; without one
# (or with ''), in a tmpfs of its own, which needs root.  JOB-OPTIONS are for all
# jobs, such as max-workers=4.  (Not in /dev/shm: images do not name
# files in /dev.)  Each pair runs RUNS (3) times, alternating; the best of each counts.
# Whole processes are timed, with opening and closing.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build}
gib=${3:-2}
more=${4:+,$4}
jobs=$build/bench/bench-jobs
dir=$(mktemp -d "${2:-/tmp}/blockgraph-jobs.XXXXXX")
trap 'rm -rf "$dir"' EXIT
if [ -z "${2:-}" ]; then
    mount -t tmpfs blockgraph-jobs "$dir"
    trap 'umount "$dir"; rm -rf "$dir"' EXIT
fi
runs=${5:-3}

# A chain of 5 images of GIB; each has a fifth of the disk, in MiB by turns.
make_chain() {
    local i script
    rm -f "$dir"/i*
    for i in 0 1 2 3 4; do
        if [ "$i" = 0 ]; then
            qemu-img create -q -f qcow2 "$dir/i0" "${gib}G"
        else
            qemu-img create -q -f qcow2 -b "i$((i - 1))" -F qcow2 "$dir/i$i"
        fi
        script=$(seq "$i" 5 $((gib * 1024 - 1)) |
                     awk '{ print "write -q -P 7 " $1 "M 1M" }')
        qemu-io -f qcow2 "$dir/i$i" <<<"$script" >/dev/null
    done
    cp "$dir/i0" "$dir/base.saved"
    cp "$dir/i4" "$dir/top.saved"
}

restore() {
    cp "$dir/base.saved" "$dir/i0"
    cp "$dir/top.saved" "$dir/i4"
}

# Seconds that pass, and those of processors.
seconds() {
    local TIMEFORMAT='%R %U %S'
    { time "$@" >/dev/null; } 2>&1 | awk '{ print $1, $2 + $3 }'
}

image() {
    echo "qcow2,node-name=$1,read-only=$2,file.driver=file,file.filename=$dir/$1"
}

# The job TYPE with OPTIONS on the chain.
chain_job() {
    "$jobs" "$1" "$2$more" --blockdev "$(image i0 on)" \
        --blockdev "$(image i1 on),backing=i0" \
        --blockdev "$(image i2 on),backing=i1" \
        --blockdev "$(image i3 on),backing=i2" \
        --blockdev "$(image i4 off),backing=i3"
}

qemu_commit() {
    qemu-img commit -q -f qcow2 -b "$dir/i0" -d "$dir/i3"
}

qemu_rebase() {
    qemu-img rebase -f qcow2 -b '' "$dir/i4"
}

# Sources: GIB of data; and half as much in every other MiB of an image.
make_sources() {
    rm -f "$dir"/i* "$dir"/*.saved
    head -c "${gib}G" /dev/urandom >"$dir/raw"
    qemu-img create -q -f qcow2 "$dir/half" "${gib}G"
    qemu-io -f qcow2 "$dir/half" >/dev/null < <(
        seq 0 2 $((gib * 1024 - 1)) | awk '{ print "write -q -P 7 " $1 "M 1M" }')
}

fresh_targets() {
    rm -f "$dir/raw.copy" "$dir/half.copy"
    truncate -s "${gib}G" "$dir/raw.copy"
    qemu-img create -q -f qcow2 "$dir/half.copy" "${gib}G"
}

# A full backup of SOURCE of FORMAT.  It does not wait for the disk: neither do cp
# and convert (-t unsafe, its default).
backup_job() {
    "$jobs" backup "device=s,target=t,sync=full$more" \
        --blockdev "$2,node-name=s,file.driver=file,file.filename=$dir/$1" \
        --blockdev "$2,node-name=t,cache.no-flush=on,file.driver=file,\
file.filename=$dir/$1.copy"
}

qemu_convert() {
    qemu-img convert -n -W -f "$2" -O "$2" "$dir/$1" "$dir/$1.copy"
}

plain_cp() {
    cp --sparse=never "$dir/raw" "$dir/raw.copy"
}

# pair NAME TARGET PREPARE OURS THEIRS: what they take, and the ratio.
pair() {
    local name=$1 target=$2 prepare=$3 ours theirs
    shift 3
    set -e
    for _ in $(seq $runs); do
        $prepare
        ours=$(eval "seconds $1")
        $prepare
        theirs=$(eval "seconds $2")
        echo "$ours $theirs"
    done | awk -v name="$name" -v target="$target" '
        NR == 1 || $1 < a { a = $1 } NR == 1 || $3 < b { b = $3 }
        NR == 1 || $2 < c { c = $2 } NR == 1 || $4 < d { d = $4 }
        END { printf "%-46s %7.3f %7.3f  %5.2f %7.3f %7.3f  %5.2f  (%s)\n",
                     name, a, b, b / a, c, d, d / c, target }'
}

printf '%-46s %7s %7s  %5s %7s %7s  %5s  %s\n' seconds ours peer ratio \
    'CPU' peer ratio '(target)'
make_chain
pair "stream of 5 images / qemu-img rebase" 1.3 restore \
    "chain_job stream device=i4" qemu_rebase
pair "commit of 4 images of 5 / qemu-img commit" 1.3 restore \
    "chain_job commit device=i4,top=i3,base=i0" qemu_commit
make_sources
pair "full backup, raw / cp --sparse=never" 0.9 fresh_targets \
    "backup_job raw raw" plain_cp
pair "full backup, raw / qemu-img convert -n -W" 1.3 fresh_targets \
    "backup_job raw raw" "qemu_convert raw raw"
pair "full backup, half of a qcow2 / convert" 1.3 fresh_targets \
    "backup_job half qcow2" "qemu_convert half qcow2"
