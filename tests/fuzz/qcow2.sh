#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# qcow2.sh FUZZER MAKE_IMAGES [ARGUMENTS]...: run the fuzzer from the corpus of
# hostile images, made for the purpose.
set -e
fuzzer=$1
make_images=$2
shift 2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 "$make_images" --expand 40 "$dir/seeds"
mkdir "$dir/found"
"$fuzzer" "$@" "$dir/found" "$dir/seeds"
