#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The tests of the driver "file" on other file systems than that of /tmp:
# each has its own ways of fallocate, direct I/O, holes and copies.
#
#     file_systems.sh TEST...
#
# Makes an image of each file system, mounts it and runs each TEST in it.
# Needs root, loop devices and mkfs; exits with 77 where none could be mounted.
set -u

# What the smallest XFS takes; the images are sparse.
image_size=400M

work=$(mktemp -d /var/tmp/blockgraph-fs.XXXXXX)
mounted=''
clean_up() {
    test -z "$mounted" || umount "$mounted"
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# mount_new TYPE: false where this system cannot.
mount_new() {
    command -v "mkfs.$1" >/dev/null || return 1
    mkdir "$work/$1"
    truncate -s "$image_size" "$work/$1.img"
    "mkfs.$1" "$work/$1.img" >"$work/log" 2>&1 || return 1
    mount -o loop "$work/$1.img" "$work/$1" 2>"$work/log" || return 1
    mounted=$work/$1
}

ran=0
failed=0
for type in xfs btrfs ext4; do
    if ! mount_new "$type"; then
        echo "$type: not here"
        continue
    fi
    ran=1
    for program in "$@"; do
        if ! TMPDIR=$mounted "$program" >"$work/log" 2>&1; then
            echo "FAILED on $type: $program"
            cat "$work/log"
            failed=1
        fi
    done
    umount "$mounted" && mounted=''
    rm -f "$work/$type.img"
done
test "$ran" = 1 || exit 77
exit "$failed"
