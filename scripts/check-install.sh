#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Install into a temporary directory and use the library as strangers do.
#
#     check-install.sh BUILD_DIR [--update-abi]
#
# Every installed header compiles alone, as C11 and as C++; the examples build
# through pkg-config and run, and so does a scenario; the exported symbols are
# those of abi.txt and abi-sim.txt.  With --update-abi, these lists are written
# anew instead: for symbols that were added.
# A symbol that was released is never removed.
set -eu

build=$1
source=$(cd "$(dirname "$0")/.." && pwd)
cc=${CC:-cc}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
failed=0

fail() {
    echo "FAILED: $*"
    failed=1
}

DESTDIR=$stage meson install -C "$build" --no-rebuild --quiet >/dev/null

# The prefix in the files is that of a real install, so it must be moved.
pc=$(find "$stage" -name blockgraph.pc)
root=${pc%/lib/*}
sed -i "s|^prefix=.*|prefix=$root|" "$pc" "${pc%.pc}-sim.pc"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
cflags=$(pkg-config --cflags blockgraph)
libs=$(pkg-config --libs blockgraph)
LD_LIBRARY_PATH=$(dirname "$(dirname "$pc")")
export LD_LIBRARY_PATH

echo "- headers"
for header in "$root"/include/blockgraph/*.h; do
    line="#include <blockgraph/$(basename "$header")>"
    # shellcheck disable=SC2086
    echo "$line" | "$cc" -x c -std=c11 -Wall -Wextra -Werror $cflags \
        -fsyntax-only - || fail "$header as C11"
    if command -v g++ >/dev/null; then
        # shellcheck disable=SC2086
        echo "$line" | g++ -x c++ -std=c++11 -Wall -Wextra -Werror $cflags \
            -fsyntax-only - || fail "$header as C++"
    fi
    if grep -q '^BLOCK_API' "$header" && ! grep -q G_BEGIN_DECLS "$header"
    then
        fail "$header declares functions that C++ would mangle"
    fi
done

echo "- examples"
truncate -s 1M "$stage/disk.img"
for example in "$source"/examples/*.c; do
    name=$(basename "$example" .c)
    lines=$(wc -l <"$example")
    [ "$lines" -le 100 ] || fail "$name.c has $lines lines, at most 100"
    # shellcheck disable=SC2086
    "$cc" -Wall -Wextra -Wno-unused-parameter -Werror "$example" \
        -o "$stage/$name" $cflags $libs || { fail "$name: build"; continue; }
    timeout 60 "$stage/$name" "$stage/disk.img" || fail "$name: run"
done
"$root/bin/bg-io" -f raw "$stage/disk.img" -c 'write -q -P 1 0 512' \
    -c 'read -q -P 1 0 512' || fail "bg-io: run"

echo "- a simulated world"
cat >"$stage/scenario.c" <<'EOF'
#include <blockgraph/sim-gen.h>

static void coroutine_fn guest(BgSim *sim, void *opaque)
{
    if (blk_co_pwrite_zeroes(opaque, 0, 4096, 0) < 0) {
        bgsim_violation(sim, "guest", "a write has failed");
    }
}

static void setup(BgSim *sim, void *state)
{
    BlockPerm perm = { BLK_PERM_WRITE, BLK_PERM_ALL };
    BlockBackend *blk = blk_new(bgsim_graph(sim), "guest", &perm);
    BlockDriverState *bs = bdrv_open(
        bgsim_graph(sim), block_options_parse_keyval("null-co", "driver",
                                                     NULL), NULL);

    blk_insert_bs(blk, bs, NULL);
    bdrv_unref(bs);
    bgsim_spawn(sim, "guest", bgsim_thread(sim, "iothread"), guest, blk);
    *(BlockBackend **)state = blk;
}

static void verify(BgSim *sim, void *state)
{
    blk_unref(*(BlockBackend **)state);
}

static const BgSimScenario scenario = {
    .name = "stranger",
    .state_size = sizeof(BlockBackend *),
    .setup = setup,
    .verify = verify,
};
static const BgSimScenario *const scenarios[] = { &scenario, NULL };

int main(int argc, char **argv)
{
    return bgsim_main(argc, argv, scenarios);
}
EOF
# shellcheck disable=SC2046
"$cc" -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
    -Werror "$stage/scenario.c" -o "$stage/scenario" \
    $(pkg-config --cflags --libs blockgraph-sim) || fail "a scenario: build"
timeout 60 "$stage/scenario" run --seeds 100 >"$stage/out" ||
    { cat "$stage/out"; fail "a scenario: run"; }
for example in "$source"/examples/sim/*.c; do
    name=$(basename "$example" .c)
    lines=$(wc -l <"$example")
    [ "$lines" -le 100 ] || fail "$name.c has $lines lines, at most 100"
    # shellcheck disable=SC2046
    "$cc" -Wall -Wextra -Wno-unused-parameter \
        -Wno-missing-field-initializers -Werror "$example" \
        -o "$stage/$name" $(pkg-config --cflags --libs blockgraph-sim) ||
        { fail "$name: build"; continue; }
    # The driver suite is one call and takes no arguments.
    timeout 60 "$stage/$name" run --seeds 50 --out "$stage" >"$stage/out" ||
        { cat "$stage/out"; fail "$name: run"; }
done
# Named points are nothing in the library itself.
if nm -a "$LD_LIBRARY_PATH/libblockgraph.so" | grep -q 'bgsim\|sim_hooks'; then
    fail "libblockgraph.so has parts of the simulation"
fi
timeout 60 "$root/bin/bg-sim" run smoke --seeds 20 >"$stage/out" ||
    { cat "$stage/out"; fail "bg-sim: run"; }

# check_symbols LIBRARY LIST [--update-abi]: what it exports is in the list.
check_symbols() {
    echo "- exported symbols of $1"
    nm -D --defined-only "$LD_LIBRARY_PATH/$1" |
        sed -n 's/.* [A-Z] \([a-z][A-Za-z0-9_]*\)\(@.*\)\{0,1\}$/\1/p' |
        LC_ALL=C sort >"$stage/abi.txt"
    if [ "${3-}" = --update-abi ]; then
        cp "$stage/abi.txt" "$source/scripts/$2"
    fi
    LC_ALL=C comm -3 "$source/scripts/$2" "$stage/abi.txt" >"$stage/changes"
    sed -n 's/^\([a-z].*\)/removed: \1/p; s/^\t\(.*\)/added: \1/p' \
        "$stage/changes"
    if [ -s "$stage/changes" ]; then
        fail "the exported symbols of $1 are not those of scripts/$2" \
            "(added ones: run this with --update-abi)"
    fi
}

check_symbols libblockgraph.so abi.txt "${2-}"
check_symbols libblockgraph-sim.so abi-sim.txt "${2-}"
exit $failed
