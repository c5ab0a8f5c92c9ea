#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A run is a function of its seed: the trace hashes of the same seeds must be
# the same in builds by gcc and clang, with and without optimisation, with a
# sanitizer, and under another heap and address layout.
#
#     sim-determinism.sh WORK_DIR [SEEDS]
set -euo pipefail
cd "$(dirname "$0")/.."

work=$1
seeds=${2:-200}
scenarios="raw crash graph stop"
mkdir -p "$work"

# variant NAME CC MESON-OPTIONS...: build bg-sim, print the hashes.
variant() {
    local name=$1 cc=$2
    shift 2
    CC=$cc meson setup "$work/$name" -Dtests=false "$@" >/dev/null
    ninja -C "$work/$name" tools/bg-sim >/dev/null
    hashes "$name" "$work/$name/tools/bg-sim"
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

variant gcc-O2 gcc -Dbuildtype=debugoptimized
variant gcc-O0 gcc -Dbuildtype=debug
variant clang-O2 clang -Dbuildtype=debugoptimized
variant gcc-asan gcc -Db_sanitize=address,undefined
# Other addresses, another heap, another fill of fresh memory.
MALLOC_PERTURB_=90 MALLOC_ARENA_MAX=1 G_SLICE=always-malloc \
    hashes heap setarch -R "$work/gcc-O2/tools/bg-sim"

failed=0
for name in gcc-O0 clang-O2 gcc-asan heap; do
    if ! cmp -s "$work/gcc-O2.txt" "$work/$name.txt"; then
        echo "FAILED: $name differs from gcc-O2:"
        diff "$work/gcc-O2.txt" "$work/$name.txt" | head -n 10
        failed=1
    fi
done
exit $failed
