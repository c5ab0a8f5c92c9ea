#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# See the library work: build it, then put data into a real file with bg-io,
# read it back, and show that QEMU's tools see the same disk.
#
#     ./demo.sh [BUILD_DIR]
#
# On Debian 12, as root or with sudo: missing packages are installed first.
set -eu

case $#,${1-} in
0, | 1,[!-]*) ;;
*) echo "usage: $0 [BUILD_DIR]" >&2; exit 2 ;;
esac

source=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-$source/build-demo}"
build=$(cd "${1:-$source/build-demo}" && pwd)

say() {
    printf '\n== %s\n' "$*"
}

run() {
    printf '$'
    for word in "$@"; do
        case $word in
        *' '*) printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

if command -v dpkg-query >/dev/null; then
    "$source/scripts/install-deps.sh" demo
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "Building in $build"
if [ ! -f "$build/build.ninja" ]; then
    run meson setup "$build" "$source" -Dtests=false >/dev/null
fi
run ninja -C "$build" tools/bg-io >"$work/build.log" 2>&1 || {
    cat "$work/build.log"
    exit 1
}
PATH="$build/tools:$PATH"
cd "$work"

say "A disk of 64 MiB: an empty file"
run truncate -s 64M disk.img

say "Write through the library: data, zeroes, 32 requests at once"
run bg-io -f raw disk.img \
    -c 'write -P 0xab 0 1M' \
    -c 'write -z 256k 64k' \
    -c 'writev -P 0xcd 3000000 5 4096 100000'
set --
for i in $(seq 0 31); do
    set -- "$@" -c "aio_write -q -P $((i + 1)) $((8 + i))M 1M"
done
printf '%s\n' "$ bg-io -f raw disk.img -c 'aio_write -q -P N OFFSET 1M' (32 x) \
-c aio_flush -c flush"
bg-io -f raw disk.img "$@" -c aio_flush -c flush

say "Read it back and compare; look at the disk"
run bg-io -r -f raw disk.img \
    -c 'read -P 0xab 0 256k' \
    -c 'read -P 0 256k 64k' \
    -c 'read -P 0xcd 3000000 104101' \
    -c 'read -P 32 39M 1M' \
    -c 'read -v 262128 32' \
    -c info -c map

say "A read that does not find what it expects fails, and says so"
if run bg-io -r -f raw disk.img -c 'read -P 0xee 0 512'; then
    echo 'It did not fail.' >&2
    exit 1
fi

if command -v qemu-io >/dev/null; then
    say "The same file, read by QEMU's own tool"
    run qemu-io -r -f raw disk.img \
        -c 'read -P 0xab 0 256k' \
        -c 'read -P 0 256k 64k' \
        -c 'read -P 0xcd 3000000 104101' \
        -c 'read -P 32 39M 1M'
    say "And what QEMU writes, this library reads"
    run qemu-io -f raw disk.img -c 'write -q -P 0x42 60M 1M'
    run bg-io -r -f raw disk.img -c 'read -P 0x42 60M 1M'
fi

say "Everything read back as it was written"
