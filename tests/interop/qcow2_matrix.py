#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images pass between QEMU's tools and ours, in both directions.

    qcow2_matrix.py BG_IMG BG_IO [SEED [CASES]]

Each case is a row of the matrix: version, cluster size, refcount width,
extended L2, compression, backing file, data file, bitmaps, snapshots.  One
side makes the image and writes to it at random, the other side then does; a
model in memory knows what it must show.  After each turn both sides check the
image, read it, map it and say what it is.  Exit status 77: no qemu-img.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMEOUT_S = 60
BUDGET_S = 70           # no further case begins after that
CASES = 40
OPS = 12

failures = []


class Failed(Exception):
    """A case failed; the text says how."""


class Tools:
    """The programs of one side."""

    def __init__(self, name, img, io):
        self.name = name
        self.img_path = img
        self.io_path = io

    def run(self, argv, folder, ok=(0,)):
        done = subprocess.run([str(a) for a in argv], cwd=folder,
                              capture_output=True, timeout=TIMEOUT_S,
                              check=False)
        if done.returncode not in ok:
            raise Failed(f'{" ".join(str(a) for a in argv)}: status '
                         f'{done.returncode}\n{done.stdout.decode()}'
                         f'{done.stderr.decode()}')
        return done.stdout.decode(errors='replace')

    def img(self, folder, *argv, ok=(0,)):
        return self.run([self.img_path, *argv], folder, ok)

    def io(self, folder, commands):
        argv = [self.io_path, '-f', 'qcow2', '-d', 'unmap']
        for command in commands:
            argv += ['-c', command]
        out = self.run(argv + ['disk'], folder)
        if 'verification failed' in out or 'failed:' in out:
            raise Failed(f'{self.name}: {commands}\n{out}')


class Row:
    """One row of the matrix, made from values that may be together."""

    def __init__(self, rng):
        self.version = rng.choice(['0.10', '1.1', '1.1', '1.1'])
        v3 = self.version == '1.1'
        self.cluster = rng.choice([512, 4096, 65536, 2 << 20])
        self.refcount_bits = rng.choice([1, 2, 4, 8, 16, 32, 64]) if v3 else 16
        self.extended = v3 and self.cluster >= 16384 and rng.random() < 0.4
        self.compression = rng.choice(['zlib', 'zstd']) if v3 else 'zlib'
        self.data_file = v3 and rng.random() < 0.15
        self.raw = self.data_file and rng.random() < 0.5
        self.backing = None
        if not self.raw and rng.random() < 0.4:
            self.backing = rng.choice(['qcow2', 'raw'])
        self.lazy = v3 and rng.random() < 0.2
        self.bitmaps = v3 and rng.random() < 0.3
        self.snapshots = (not self.data_file and self.refcount_bits > 1 and
                          rng.random() < 0.5)
        # Compressed clusters share a host cluster, and so its refcount.
        self.packed = not self.data_file and not (self.snapshots and
                                                  self.refcount_bits < 16)
        self.size = {512: 1 << 20, 4096: 4 << 20, 65536: 16 << 20,
                     2 << 20: 24 << 20}[self.cluster]
        self.size -= rng.choice([0, 0, 512 * 3])

    def options(self):
        o = [f'compat={self.version}', f'cluster_size={self.cluster}']
        if self.version == '1.1':
            o += [f'refcount_bits={self.refcount_bits}',
                  f'extended_l2={"on" if self.extended else "off"}',
                  f'compression_type={self.compression}',
                  f'lazy_refcounts={"on" if self.lazy else "off"}']
        if self.data_file:
            o += ['data_file=disk.data',
                  f'data_file_raw={"on" if self.raw else "off"}']
        return ','.join(o)

    def __str__(self):
        extra = [name for name in ('lazy', 'bitmaps', 'snapshots')
                 if getattr(self, name)]
        return (f'{self.options()} size={self.size} backing={self.backing} '
                f'{" ".join(extra)}')


class Disk:
    """An image, and what it must show."""

    def __init__(self, row, rng, folder, sides):
        self.row = row
        self.rng = rng
        self.folder = folder
        self.sides = sides
        self.model = bytearray(row.size)
        self.kept = {}      # snapshots: name -> content
        self.touched = set()    # clusters that may have a place of their own

    # --- making and writing -------------------------------------------------

    def make(self, side):
        row = self.row
        argv = ['create', '-q', '-f', 'qcow2', '-o', row.options()]
        if row.backing:
            self._make_backing(side)
            argv += ['-b', 'base', '-F', row.backing]
        side.img(self.folder, *argv, 'disk', row.size)

    def _make_backing(self, side):
        row = self.row
        size = row.size - self.rng.choice([0, row.size // 4 & ~511])
        (self.folder / 'base.raw').write_bytes(bytes(
            self._pattern(self.rng.randrange(1, 200), size)))
        self.model[:size] = (self.folder / 'base.raw').read_bytes()
        if row.backing == 'raw':
            (self.folder / 'base.raw').rename(self.folder / 'base')
        else:
            side.img(self.folder, 'convert', '-f', 'raw', '-O', 'qcow2',
                     'base.raw', 'base')

    @staticmethod
    def _pattern(byte, bytes_):
        return bytes([byte]) * bytes_

    def _range(self, unit):
        """A part of the disk in multiples of @unit; its end may be cut."""
        rng = self.rng
        nr = self.row.size // unit
        start = rng.randrange(nr)
        length = min(rng.choice([1, 1, 2, 3, 8, 40]), nr - start)
        return start * unit, length * unit

    def _touch(self, offset, length):
        cluster = self.row.cluster
        self.touched.update(range(offset // cluster,
                                  -(-(offset + length) // cluster)))

    def _one_op(self, side):
        rng, row = self.rng, self.row
        kind = rng.choice(['write'] * 5 + ['zero', 'zero', 'discard',
                                           'packed', 'packed', 'flush'])
        byte = 0
        if kind == 'write':
            offset, length = self._range(512 if row.cluster < 1 << 20
                                         else 65536)
            byte = rng.randrange(1, 256)
            command = f'write -P {byte} {offset} {length}'
        elif kind == 'zero':
            offset, length = self._range(512)
            command = f'write -z {rng.choice(["", "-u "])}{offset} {length}'
        elif kind == 'discard' and not (row.backing and
                                        row.version == '0.10'):
            offset, length = self._range(row.cluster)
            command = f'discard {offset} {length}'
        elif kind == 'packed' and row.packed:
            offset, length = self._range(row.cluster)[0], row.cluster
            if side.name == 'qemu' and offset // row.cluster in self.touched:
                return 'flush'  # QEMU compresses only what is not there
            byte = rng.randrange(1, 256)
            command = f'write -c -P {byte} {offset} {length}'
        else:
            return 'flush'
        self.model[offset:offset + length] = self._pattern(byte, length)
        self._touch(offset, length)
        return command

    def write(self, side):
        side.io(self.folder, [self._one_op(side) for _ in range(OPS)])

    def snapshot(self, side):
        name = f'snap{len(self.kept)}'
        side.img(self.folder, 'snapshot', '-c', name, 'disk')
        self.kept[name] = bytes(self.model)

    def bitmap(self, side):
        name = f'bitmap{self.rng.randrange(10 ** 6)}'
        side.img(self.folder, 'bitmap', '--add', '-g',
                 str(self.rng.choice([512, 65536, 1 << 20])), 'disk', name)

    # --- looking -------------------------------------------------------------

    def expect_content(self, side, content, snapshot=None):
        argv = ['convert', '-f', 'qcow2', '-O', 'raw']
        if snapshot:
            argv += ['-l', snapshot]
        side.img(self.folder, *argv, 'disk', 'out.raw')
        out = (self.folder / 'out.raw').read_bytes()
        if out != content:
            at = next((i for i, (a, b) in enumerate(zip(out, content))
                       if a != b), min(len(out), len(content)))
            raise Failed(f'{side.name} reads other data'
                         f'{f" of {snapshot}" if snapshot else ""} at byte '
                         f'{at}: lengths {len(out)}, {len(content)}')

    def look(self):
        qemu, ours = self.sides['qemu'], self.sides['bg']
        qemu.img(self.folder, 'check', 'disk')
        ours.img(self.folder, 'check', 'disk')
        for side in (qemu, ours):
            self.expect_content(side, bytes(self.model))
            for name, content in self.kept.items():
                self.expect_content(side, content, name)
        self._compare_maps(qemu, ours)
        self._compare_infos(qemu, ours)
        ours.img(self.folder, 'compare', '-f', 'qcow2', '-F', 'raw', 'disk',
                 'out.raw', ok=(0,) if not self.kept else (0, 1))
        if self.row.raw:
            raw = (self.folder / 'disk.data').read_bytes()
            if raw[:len(self.model)] != bytes(self.model):
                raise Failed('the data file is not the raw image')

    @staticmethod
    def _normal_map(text):
        """Runs of the same kind, joined.  Where QEMU sees holes in the file
        it may say that data are zero, too."""
        runs = []
        for e in json.loads(text):
            key = [e['depth'], e['data'], e['zero'] and not e['data']]
            offset = e.get('offset') if e['data'] else None
            last = runs[-1] if runs else None
            if last and last['key'] == key and (
                    offset is None and last['offset'] is None or
                    offset is not None and last['offset'] is not None and
                    last['offset'] + last['length'] == offset):
                last['length'] += e['length']
            else:
                runs.append({'start': e['start'], 'length': e['length'],
                             'key': key, 'offset': offset})
        return runs

    def _compare_maps(self, qemu, ours):
        maps = [self._normal_map(side.img(self.folder, 'map', '-f', 'qcow2',
                                          '--output=json', 'disk'))
                for side in (qemu, ours)]
        if maps[0] != maps[1]:
            only = [[m for m in maps[i] if m not in maps[1 - i]]
                    for i in (0, 1)]
            raise Failed(f'maps differ: qemu-img {only[0][:3]}, '
                         f'bg-img {only[1][:3]}')

    def _compare_infos(self, qemu, ours):
        infos = [json.loads(side.img(self.folder, 'info', '-f', 'qcow2',
                                     '--output=json', 'disk'))
                 for side in (qemu, ours)]
        for info in infos:
            # A file of holes grows and shrinks as the system likes.
            for key in ('actual-size', 'filename', 'children'):
                info.pop(key, None)
        if infos[0] != infos[1]:
            raise Failed(f'info differs:\nqemu-img {infos[0]}\n'
                         f'bg-img   {infos[1]}')


def run_case(row, rng, folder, sides, first):
    """Make an image with one side, then write to it with both in turn."""
    order = ['qemu', 'bg'] if first == 'qemu' else ['bg', 'qemu']
    disk = Disk(row, rng, folder, sides)
    disk.make(sides[first])
    for name in order + order[:1]:
        side = sides[name]
        disk.write(side)
        if row.snapshots and rng.random() < 0.6 and len(disk.kept) < 2:
            disk.snapshot(side)
            disk.write(side)
        if row.bitmaps:
            disk.bitmap(side)
        try:
            disk.look()
        except Failed as e:
            raise Failed(f'after {name} wrote: {e}') from e


def resize_and_delete(sides, folder):
    """R57, R69 in both directions: grow, shrink and snapshots."""
    for maker, other in (('qemu', 'bg'), ('bg', 'qemu')):
        a, b = sides[maker], sides[other]
        a.img(folder, 'create', '-q', '-f', 'qcow2', 'disk', '4M')
        a.io(folder, ['write -P 1 0 4M'])
        b.img(folder, 'snapshot', '-c', 's1', 'disk')
        b.img(folder, 'resize', '-f', 'qcow2', 'disk', '8M')
        a.io(folder, ['read -P 1 0 4M', 'read -P 0 4M 4M',
                      'write -P 2 3M 2M'])
        a.img(folder, 'resize', '-f', 'qcow2', '--shrink', 'disk', '6M')
        b.io(folder, ['read -P 1 0 3M', 'read -P 2 3M 2M'])
        b.img(folder, 'snapshot', '-a', 's1', 'disk')
        a.io(folder, ['read -P 1 0 4M'])
        a.img(folder, 'snapshot', '-d', 's1', 'disk')
        sides['qemu'].img(folder, 'check', 'disk')
        os.unlink(folder / 'disk')


def main():
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        print('no qemu-img or qemu-io')
        return 77
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else \
        random.SystemRandom().randrange(1 << 32)
    cases = int(sys.argv[4]) if len(sys.argv) > 4 else CASES
    print(f'seed {seed}')
    sides = {'qemu': Tools('qemu', 'qemu-img', 'qemu-io'),
             'bg': Tools('bg', os.path.abspath(sys.argv[1]),
                         os.path.abspath(sys.argv[2]))}
    start = time.monotonic()
    done = 0
    for case in range(cases):
        if time.monotonic() - start > BUDGET_S:
            break
        rng = random.Random(f'{seed}-{case}')
        row = Row(rng)
        first = ('qemu', 'bg')[case % 2]
        with tempfile.TemporaryDirectory(prefix='blockgraph-') as name:
            try:
                run_case(row, rng, Path(name), sides, first)
            except Failed as e:
                failures.append(case)
                print(f'FAIL case {case} (made by {first}: {row}): {e}')
        done += 1
    with tempfile.TemporaryDirectory(prefix='blockgraph-') as name:
        try:
            resize_and_delete(sides, Path(name))
        except Failed as e:
            failures.append('resize')
            print(f'FAIL resize: {e}')
    print(f'{done} cases, {len(failures)} failed, '
          f'{time.monotonic() - start:.0f} s, seed {seed}')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
