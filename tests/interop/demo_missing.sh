#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The demonstration without the programs that it shows, and without a network:
# it says what is missing, and leaves nothing.
#
#     demo_missing.sh SOURCE_FOLDER
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/bin" "$folder/tree" "$folder/tree/scripts" "$folder/tmp"
cp "$1/demo.sh" "$folder/tree"
cp "$1/scripts/install-deps.sh" "$folder/tree/scripts"
for tool in sh bash env dirname realpath mktemp rm cat id; do
    ln -s "$(command -v $tool)" "$folder/bin"
done

# The folders that demo.sh adds by itself may have e2fsck, but never these.
try() {
    status=0
    PATH=$folder/bin TMPDIR=$folder/tmp sh "$folder/tree/demo.sh" \
        >"$folder/out" 2>&1 || status=$?
    cat "$folder/out"
    [ "$status" -eq 1 ]
    grep -q "$1" "$folder/out"
    [ "$(ls "$folder/tree")" = "demo.sh
scripts" ]
    [ -z "$(ls "$folder/tmp")" ]
}

try 'these programs are missing:.*qemu-img.*fio.*nbdcopy'

# Nothing is installed, and nothing can be.
for tool in dpkg-query apt-get sudo; do
    printf '#!/bin/sh\nexit 100\n' >"$folder/bin/$tool"
    chmod +x "$folder/bin/$tool"
done
try 'could not install:.*fio.*libnbd-bin'
