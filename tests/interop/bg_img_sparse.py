#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-img and long images that are nearly empty: what is not there costs nothing.

    bg_img_sparse.py BG_IMG BG_IO

An image says how long its disk is, and a few bytes say a lot.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

BG_IMG, BG_IO = (str(Path(word).resolve()) for word in sys.argv[1:3])
LENGTH = 1 << 46
MiB = 1 << 20


def must(folder, *words):
    subprocess.run(words, cwd=folder, timeout=60, check=True)


def make(folder, name, length, spots, backing=None):
    below = ['-b', backing, '-F', 'qcow2'] if backing else []
    must(folder, BG_IMG, 'create', '-q', '-f', 'qcow2', '-o',
         'cluster_size=2M', *below, name, str(length))
    for offset, bytes_, pattern in spots:
        must(folder, BG_IO, '-f', 'qcow2', '-c',
             f'write -q -P {pattern} {offset} {bytes_}', name)


def expect(folder, name, spots):
    for offset, bytes_, pattern in spots:
        must(folder, BG_IO, '-f', 'qcow2', '-c',
             f'read -q -P {pattern} {offset} {bytes_}', name)


def rebase(folder, name, backing):
    must(folder, BG_IMG, 'rebase', '-q', '-f', 'qcow2', '-b', backing,
         *(['-F', 'qcow2'] if backing else []), name)


OLD = [(3 * MiB, 512, 1), (LENGTH // 2 - MiB, 3 * MiB, 2),
       (LENGTH - 512, 512, 3)]
TOP = [(4 * MiB, 4096, 4), (LENGTH // 2, MiB, 5)]
NEW = [(3 * MiB, 512, 6), (40 * MiB, 4096, 7), (LENGTH // 4 - 512, 512, 8)]
SEEN = [(3 * MiB, 512, 1), (4 * MiB, 4096, 4), (40 * MiB, 4096, 0),
        (LENGTH // 4 - 512, 1024, 0), (LENGTH // 2 - MiB, MiB, 2),
        (LENGTH // 2, MiB, 5), (LENGTH // 2 + MiB, MiB, 2),
        (LENGTH // 2 + 2 * MiB, MiB, 0), (LENGTH - 1024, 512, 0),
        (LENGTH - 512, 512, 3)]


def check_rebase(folder):
    """To none, and to one that is shorter and holds something else."""
    make(folder, 'old', LENGTH, OLD)
    make(folder, 'new', LENGTH // 4, NEW)
    for to in '', 'new':
        make(folder, 'top', LENGTH, TOP, 'old')
        expect(folder, 'top', SEEN)
        rebase(folder, 'top', to)
        expect(folder, 'top', SEEN)
        must(folder, BG_IMG, 'check', '-q', '-f', 'qcow2', 'top')
        assert (Path(folder) / 'top').stat().st_size < 64 * MiB


def check_rebase_of_nothing(folder):
    make(folder, 'alone', LENGTH, [])
    rebase(folder, 'alone', '')
    rebase(folder, 'alone', 'new')
    expect(folder, 'alone', [(3 * MiB, 512, 0), (40 * MiB, 4096, 0)])


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_rebase(folder)
        check_rebase_of_nothing(folder)


main()
