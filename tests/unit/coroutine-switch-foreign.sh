#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Build the switch of stacks for aarch64 and run its test in an emulator.
# Exits with 77 (skipped) when this system has no such tools.
set -eu

root=$1
compiler=${AARCH64_CC:-aarch64-linux-gnu-gcc}
emulator=${AARCH64_EMULATOR:-qemu-aarch64}

for tool in "$compiler" "$emulator"; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: no $tool"
        exit 77
    fi
done

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

for options in -O0 -O2 "-O2 -mbranch-protection=standard"; do
    # shellcheck disable=SC2086
    "$compiler" $options -g -static -Wall -Werror -I"$root" \
        -o "$dir/test" "$root/tests/unit/coroutine-switch-foreign.c" \
        "$root/util/coroutine-aarch64.S"
    "$emulator" "$dir/test"
    echo "ok: $options"
done
