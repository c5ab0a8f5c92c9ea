#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Install the Debian packages that are missing:
#
#   install-deps.sh build   what the library and its tools need
#   install-deps.sh demo    the same, and what demo.sh shows beside them
#   install-deps.sh test    what the build and the tests need
#   install-deps.sh ci      the same, and what the sanitizer builds need
#
# Does nothing, and needs no rights, when all are there.
set -euo pipefail

build="gcc libc6-dev meson ninja-build pkg-config libglib2.0-dev
       libgnutls28-dev liburing-dev libjansson-dev zlib1g-dev libzstd-dev"
demo="$build qemu-utils python3 e2fsprogs fio libnbd-bin"
test="$build check libsubunit-dev g++ python3 universal-ctags binutils
      qemu-utils qemu-system-common fio nbdkit libnbd-bin python3-libnbd
      gnutls-bin e2fsprogs btrfs-progs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
ci="$test clang libclang-rt-14-dev"

case "${1:-build}" in
build) wanted=$build ;;
demo) wanted=$demo ;;
test) wanted=$test ;;
ci) wanted=$ci ;;
*) echo "usage: $0 build|demo|test|ci" >&2; exit 2 ;;
esac

missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case "$status" in
    ii*) ;;
    *) missing="$missing $package" ;;
    esac
done
if [ -z "$missing" ]; then
    exit 0
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
    sudo=sudo
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! $sudo apt-get install -y --no-install-recommends $missing >/dev/null 2>&1; then
    # The package lists may be old or absent.
    # shellcheck disable=SC2086
    if ! { $sudo apt-get update -q &&
           $sudo apt-get install -y --no-install-recommends $missing; }; then
        echo "$0: could not install:$missing" >&2
        exit 1
    fi
fi
