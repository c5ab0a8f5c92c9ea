#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A disk that is being written is backed up and read at a point in time:
#
#     ./demo.sh [IMAGE]
#
# Builds the tools in build-demo, makes a disk with a file system (or a layer
# above IMAGE, which is not changed), and does with bg-daemon what
# scripts/demo.py tells.  On Debian 12, as root or with sudo: missing packages
# are installed first.  The graph is left in build-demo/graphs, with pictures if
# graphviz is installed.  Where this folder cannot be written, the tools are built
# in a temporary one, and the graph is left in another.
set -eu

case $#,${1-} in
0, | 1,[!-]*) ;;
*) echo "usage: $0 [IMAGE]" >&2; exit 2 ;;
esac
image=${1:+$(realpath -- "$1")}
if [ -n "$image" ] && [ ! -r "$image" ]; then
    echo "$0: cannot read '$1'" >&2
    exit 1
fi

source=$(cd "$(dirname "$0")" && pwd)
build=$source/build-demo
PATH=$PATH:/usr/sbin:/sbin

if command -v dpkg-query >/dev/null; then
    "$source/scripts/install-deps.sh" demo
fi

absent=
for tool in meson ninja python3 qemu-img fio nbdcopy mke2fs e2fsck debugfs; do
    command -v "$tool" >/dev/null || absent="$absent $tool"
done
if [ -n "$absent" ]; then
    echo "$0: these programs are missing:$absent" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

graphs=$build/graphs
if ! { mkdir -p "$graphs" && [ -w "$build" ] && [ -w "$graphs" ]; } 2>"$work/log"
then
    build=$work/build
    graphs=
fi

echo "== Building in $build"
{
    [ -f "$build/build.ninja" ] ||
        meson setup "$build" "$source" -Dtests=false
    ninja -C "$build" tools/bg-daemon tools/bg-img tools/bg-io
} >"$work/build.log" 2>&1 || {
    cat "$work/build.log"
    exit 1
}

python3 "$source/scripts/demo.py" "$build/tools" "$work" ${image:+"$image"}
if [ -z "$graphs" ]; then
    graphs=$(mktemp -d "${TMPDIR:-/tmp}/blockgraph-graphs-XXXXXX")
    echo "== The graph is in $graphs"
fi
cp "$work"/graph-* "$graphs"
