#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
#     demo.sh DEMO_PY BG_DAEMON [TOOL...]
#
# The demonstration with tools that are built already; then again with a user's
# image, which must stay as it is.
set -eu

for tool in fio nbdcopy mke2fs e2fsck debugfs qemu-img; do
    if ! PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null; then
        echo "no $tool"
        exit 77
    fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin:/sbin
tools=$(dirname "$2")

mkdir "$work/a" "$work/b"
python3 "$1" "$tools" "$work/a"
cp "$work/a/disk.qcow2" "$work/own.qcow2"
sha256sum "$work/own.qcow2" >"$work/sum"
python3 "$1" "$tools" "$work/b" "$work/own.qcow2"
sha256sum -c "$work/sum"
