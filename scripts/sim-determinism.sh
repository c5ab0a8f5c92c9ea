#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A run is a function of its seed: the trace hashes of the same seeds must be
# the same in builds by gcc and clang, with and without optimisation, with a
# sanitizer, and under another heap and address layout.
#
#     sim-determinism.sh WORK_DIR [SEEDS [GCC_BUILD CLANG_BUILD ASAN_BUILD]]
#
# Builds are made in WORK_DIR but for those that are given.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$1
seeds=${2:-200}
scenarios="raw crash graph stop"
mkdir -p "$work"

# variant NAME DIR CC MESON-OPTIONS...: build bg-sim in DIR, print the hashes.
variant() {
    local name=$1 dir=$2 cc=$3
    shift 3
    if [ ! -f "$dir/build.ninja" ]; then
        CC=$cc meson setup "$dir" -Dtests=false "$@" >/dev/null
    fi
    ninja -C "$dir" tools/bg-sim >/dev/null
    hashes "$name" "$dir/tools/bg-sim"
}

# hashes NAME COMMAND...
hashes() {
    local name=$1 scenario
    shift
    for scenario in $scenarios; do
        "$@" hash "$scenario" --seeds "$seeds" | sed "s/^/$scenario /"
    done >"$work/$name.txt"
    echo "$name: $(wc -l <"$work/$name.txt") runs"
}

gcc=${3:-$work/gcc-O2}
variant gcc-O2 "$gcc" gcc -Dbuildtype=debugoptimized
variant gcc-O0 "$work/gcc-O0" gcc -Dbuildtype=debug
variant clang-O2 "${4:-$work/clang-O2}" clang -Dbuildtype=debugoptimized
variant gcc-asan "${5:-$work/gcc-asan}" gcc -Db_sanitize=address,undefined
# Other addresses, another heap, another fill of fresh memory.
MALLOC_PERTURB_=90 MALLOC_ARENA_MAX=1 G_SLICE=always-malloc \
    hashes heap setarch -R "$gcc/tools/bg-sim"

failed=0
for name in gcc-O0 clang-O2 gcc-asan heap; do
    if ! cmp -s "$work/gcc-O2.txt" "$work/$name.txt"; then
        echo "FAILED: $name differs from gcc-O2:"
        diff "$work/gcc-O2.txt" "$work/$name.txt" | head -n 10
        failed=1
    fi
done
exit $failed
