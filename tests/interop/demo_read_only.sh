#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The demonstration in folders that cannot be written: that of the source, and
# the one where it is called.  What it builds and shows is made elsewhere.
#
#     demo_read_only.sh SOURCE_FOLDER
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/bin" "$folder/tree" "$folder/tree/scripts" "$folder/tmp"
cp "$1/demo.sh" "$folder/tree"
# Programs that say what they were called with; the tests "demo" have real ones.
for tool in dpkg-query qemu-img fio nbdcopy mke2fs e2fsck debugfs; do
    ln -s "$(command -v true)" "$folder/bin/$tool"
done
cat >"$folder/bin/meson" <<'END'
#!/bin/sh
mkdir -p "$2" && touch "$2/build.ninja"
END
cat >"$folder/bin/ninja" <<'END'
#!/bin/sh
[ -f "$2/build.ninja" ]
END
cat >"$folder/bin/python3" <<'END'
#!/bin/sh
echo "tools $2"
echo graph >"$3/graph-1.dot"
END
printf '#!/bin/sh\n' >"$folder/tree/scripts/install-deps.sh"
chmod +x "$folder"/bin/meson "$folder"/bin/ninja "$folder"/bin/python3 \
    "$folder/tree/scripts/install-deps.sh"

try() {
    (cd "$folder/tmp" && PATH=$folder/bin:$PATH TMPDIR=$folder/tmp \
        sh "$folder/tree/demo.sh") >"$folder/out" 2>&1 || {
        cat "$folder/out"
        exit 1
    }
}

# As ever.
try
grep -q "^tools $folder/tree/build-demo/tools$" "$folder/out"
[ -f "$folder/tree/build-demo/graphs/graph-1.dot" ]
[ -z "$(ls "$folder/tmp")" ]

# Not even root can make a folder where there is a file.
rm -r "$folder/tree/build-demo"
touch "$folder/tree/build-demo"
try
grep -q "^tools $folder/tmp/.*/build/tools$" "$folder/out"
[ "$(ls "$folder/tmp" | wc -l)" -eq 1 ]
[ -f "$folder"/tmp/blockgraph-graphs-*/graph-1.dot ]
grep -q "The graph is in $folder/tmp/blockgraph-graphs-" "$folder/out"
