#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the corpus of hostile qcow2 images.

    make-images.py OUT_DIR             base images, and the list of cases
    make-images.py --expand N OUT_DIR  every N-th case as a file (to begin a
                                       fuzzer with)

A case is a base image, what is overwritten in it, and where it is cut off; so
thousands of them take little room.  A line of OUT_DIR/cases.txt:

    name base open read_cluster read truncate patch...

open is what opening must give: "yes", "no" (an error), "any".  read is what
the guest cluster of that number must then show: "data", "packed", "zero",
"error", "dataerror" (either), "any".  truncate is a length or "-".  A patch
is OFFSET:HEX.
"""
import argparse
import struct
import sys
import zlib
from pathlib import Path

from qcow2_image import (BITMAP_DIR, BITMAP_TABLE, COMPRESSED, COPIED, DATA,
                         EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_CRYPTO,
                         EXT_DATA_FILE, EXT_FEATURES, FIELDS, GUEST_DATA,
                         GUEST_PACKED, GUEST_ZERO, HEADER, L1, L2, PACKED,
                         PACKED_BYTE, REFBLOCK, REFTABLE, SNAP_L1, SNAPSHOTS,
                         Image, deflate, zstd_raw, zstd_window)


class Case:
    def __init__(self, name, base, patches=(), truncate=None, opens='any',
                 cluster=GUEST_DATA, read='any'):
        self.name = name
        self.base = base
        self.patches = list(patches)
        self.truncate = truncate
        self.opens = opens
        self.cluster = cluster
        self.read = read

    def line(self):
        cut = '-' if self.truncate is None else self.truncate
        patches = ' '.join(f'{o}:{d.hex()}' for o, d in self.patches)
        return (f'{self.name} {self.base} {self.opens} {self.cluster} '
                f'{self.read} {cut} {patches}').rstrip()

    def expand(self, bases):
        data = bytearray(bases[self.base].data)
        for offset, patch in self.patches:
            if len(data) < offset:
                data += bytes(offset - len(data))
            data[offset:offset + len(patch)] = patch
        return bytes(data if self.truncate is None
                     else data[:self.truncate])


def be(value, size):
    return (value & ((1 << size * 8) - 1)).to_bytes(size, 'big')


def interesting(size):
    """Values of @size bytes near every limit that a field may have."""
    bits = size * 8
    top = 1 << bits
    values = {0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, top // 2 + 1}
    for i in range(bits):
        values |= {(1 << i) - 1, 1 << i, (1 << i) + 1}
    return sorted(v for v in values if 0 <= v < top)


# --- the kinds of cases ------------------------------------------------------

def header_fields(bases):
    for base in ('v3', 'v2'):
        for name, (offset, size) in FIELDS.items():
            if base == 'v2' and offset >= 72:
                continue
            for value in interesting(size):
                opens = 'any'
                if name == 'magic':
                    opens = 'no'
                elif name == 'version' and value not in (2, 3):
                    opens = 'no'
                elif name == 'crypt_method' and value:
                    opens = 'no'
                elif name == 'incompatible' and value >> 5:
                    opens = 'no'
                elif name == 'refcount_order' and value > 6:
                    opens = 'no'
                yield Case(f'{base}-{name}-{value:x}', base,
                           [(offset, be(value, size))], opens=opens)


def cluster_sizes(bases):
    for bits in range(256):
        opens = 'any' if 9 <= bits <= 21 else 'no'
        for base in ('v3', 'v2', 'extended'):
            yield Case(f'{base}-cluster_bits-{bits}', base,
                       [(20, be(bits, 4))], opens=opens)


def truncations(bases):
    for base in ('small', 'v3'):
        image = bases[base]
        for length in range(0, len(image.data), 512):
            yield Case(f'{base}-truncated-{length}', base, truncate=length,
                       opens='no' if length < 72 else 'any')


def l2_meaning(bit, extended):
    """What a normal cluster shows when this bit of its entry is flipped."""
    if bit == 63:
        return 'data'       # only whether it is shared
    if bit == 62:
        return 'error'      # noise is no compressed data
    if bit >= 56 or 1 <= bit <= 8:
        return 'error'      # reserved
    if bit == 0:
        return 'error' if extended else 'zero'
    return 'any'            # another place


def l2_bits(bases):
    for base in ('v3', 'extended'):
        image = bases[base]
        at = image.l2_at(GUEST_DATA)
        word = struct.unpack('>Q', image.data[at:at + 8])[0]
        for bit in range(64):
            yield Case(f'{base}-l2-bit-{bit}', base,
                       [(at, be(word ^ 1 << bit, 8))], cluster=GUEST_DATA,
                       read=l2_meaning(bit, image.extended))
    image = bases['extended']
    at = image.l2_at(GUEST_DATA) + 8
    for bit in range(64):
        # Not allocated any more: shows zeroes; both at once is no meaning.
        yield Case(f'extended-bitmap-bit-{bit}', 'extended',
                   [(at, be(0xffffffff ^ 1 << bit, 8))], cluster=GUEST_DATA,
                   read='any' if bit < 32 else 'error')


def packed_bits(bases):
    for base in ('v3', 'zstd', 'extended'):
        image = bases[base]
        at = image.l2_at(GUEST_PACKED)
        word = struct.unpack('>Q', image.data[at:at + 8])[0]
        for bit in range(64):
            yield Case(f'{base}-packed-bit-{bit}', base,
                       [(at, be(word ^ 1 << bit, 8))], cluster=GUEST_PACKED,
                       read='any')
        if image.extended:
            yield Case(f'{base}-packed-with-bitmap', base,
                       [(at + 8, be(1, 8))], cluster=GUEST_PACKED,
                       read='error')


def l1_bits(bases):
    for base in ('v3', 'v2'):
        image = bases[base]
        at = image.at(L1)
        word = struct.unpack('>Q', image.data[at:at + 8])[0]
        for bit in range(64):
            read = 'any'
            if bit == 63:
                read = 'data'
            elif bit >= 56 or bit < 9:
                read = 'error'
            yield Case(f'{base}-l1-bit-{bit}', base,
                       [(at, be(word ^ 1 << bit, 8))], read=read)


def table_bits(bases):
    """Everything else that is named by some table, a bit at a time."""
    image = bases['v3']
    parts = {
        'reftable': (image.at(REFTABLE), 8),
        'refblock': (image.at(REFBLOCK), 32),
        'snapshot': (image.at(SNAPSHOTS), 40 + 24 + 5),
        'snapshot-l1': (image.at(SNAP_L1), 8),
        'bitmap-dir': (image.at(BITMAP_DIR), 32),
        'bitmap-table': (image.at(BITMAP_TABLE), 8),
        'extensions': (image.ext_start, 40),
    }
    for part, (start, size) in parts.items():
        for i in range(size * 8):
            at = start + i // 8
            yield Case(f'v3-{part}-bit-{i}', 'v3',
                       [(at, bytes([image.data[at] ^ 0x80 >> i % 8]))])


def places(image):
    """Offsets that no entry should have."""
    end = len(image.data)
    cluster = image.cluster
    return {
        'header': 0, 'unaligned': image.at(DATA) + 512,
        'reftable': image.at(REFTABLE), 'refblock': image.at(REFBLOCK),
        'l1': image.at(L1), 'l2': image.at(L2), 'end': end,
        'past': end + cluster, 'far': 1 << 50, 'top': (1 << 56) - cluster,
        'beyond': 1 << 56, 'sign': 1 << 63, 'all': (1 << 64) - 512,
    }


def tables_elsewhere(bases):
    image = bases['v3']
    entries = {
        'l1-field': (FIELDS['l1_offset'][0], 0),
        'reftable-field': (FIELDS['reftable_offset'][0], 0),
        'snapshots-field': (FIELDS['snapshots_offset'][0], 0),
        'bitmaps-field': (image.bitmaps_ext + 16, 0),
        'l1-entry': (image.at(L1), COPIED),
        'l2-entry': (image.l2_at(GUEST_DATA), COPIED),
        'l2-zero-entry': (image.l2_at(GUEST_ZERO), COPIED | 1),
        'reftable-entry': (image.at(REFTABLE), 0),
        'snapshot-l1': (image.at(SNAPSHOTS), 0),
        'snapshot-l1-entry': (image.at(SNAP_L1), 0),
        'bitmap-table': (image.at(BITMAP_DIR), 0),
        'bitmap-table-entry': (image.at(BITMAP_TABLE), 0),
    }
    for what, (at, flags) in entries.items():
        for where, offset in places(image).items():
            yield Case(f'v3-{what}-to-{where}', 'v3',
                       [(at, be(offset | flags, 8))])


def huge_counts(bases):
    image = bases['v3']
    for value in interesting(4):
        yield Case(f'v3-snapshot-l1-size-{value:x}', 'v3',
                   [(image.at(SNAPSHOTS, 8), be(value, 4))])
        yield Case(f'v3-snapshot-extra-{value:x}', 'v3',
                   [(image.at(SNAPSHOTS, 36), be(value, 4))])
        yield Case(f'v3-bitmap-count-{value:x}', 'v3',
                   [(image.bitmaps_ext, be(value, 4))])
        yield Case(f'v3-bitmap-entries-{value:x}', 'v3',
                   [(image.at(BITMAP_DIR, 8), be(value, 4))])
        yield Case(f'v3-bitmap-extra-{value:x}', 'v3',
                   [(image.at(BITMAP_DIR, 20), be(value, 4))])
        yield Case(f'v3-extension-size-{value:x}', 'v3',
                   [(image.ext_start + 4, be(value, 4))])
        for magic in (EXT_BACKING_FORMAT, EXT_FEATURES, EXT_CRYPTO,
                      EXT_DATA_FILE, 0x12345678):
            yield Case(f'v3-extension-{magic:x}-size-{value:x}', 'v3',
                       [(image.ext_start, be(magic, 4) + be(value, 4))])
    for value in interesting(8):
        yield Case(f'v3-bitmap-dir-size-{value:x}', 'v3',
                   [(image.bitmaps_ext + 8, be(value, 8))])
        yield Case(f'v3-snapshot-disk-size-{value:x}', 'v3',
                   [(image.at(SNAPSHOTS, 48), be(value, 8))])
    for value in interesting(2):
        yield Case(f'v3-snapshot-id-{value:x}', 'v3',
                   [(image.at(SNAPSHOTS, 12), be(value, 2))])
        yield Case(f'v3-snapshot-name-{value:x}', 'v3',
                   [(image.at(SNAPSHOTS, 14), be(value, 2))])
        yield Case(f'v3-bitmap-name-{value:x}', 'v3',
                   [(image.at(BITMAP_DIR, 18), be(value, 2))])


def many_snapshots(bases):
    """A table of 65536 snapshots that share one L1 table of 32 MiB."""
    image = bases['v3']
    one = struct.pack('>QIHHIIQII', image.at(L1), 4 << 20, 1, 4, 0, 0, 0, 0,
                      0) + b'1' + b'snap'
    one += bytes(-len(one) % 8)
    yield Case('v3-many-snapshots', 'v3',
               [(60, be(65536, 4)), (64, be(1 << 20, 8)),
                (1 << 20, one * 4000)])


def many_bitmaps(bases):
    """R20: each of many bitmaps may ask for 512 MiB, and stores nothing."""
    image = bases['v3']
    nr = 4000
    entry = b''.join(
        struct.pack('>QIIBBHI', image.at(BITMAP_TABLE), 131072, 2, 1, 9, 6,
                    0) + b'b%05d' % i + bytes(2) for i in range(nr))
    yield Case('v3-many-bitmaps', 'v3',
               [(24, be(1 << 41, 8)),
                (image.bitmaps_ext, be(nr, 4) + bytes(4) +
                 be(len(entry), 8) + be(1 << 20, 8)), (1 << 20, entry)])


def packed_sizes(bases):
    """R14: compressed data that ends at, before and after the file's end."""
    for base in ('v3', 'zstd'):
        image = bases[base]
        at = image.l2_at(GUEST_PACKED)
        stream = (image.zstd_stream or
                  deflate(bytes([PACKED_BYTE]) * image.cluster))
        end = len(image.data)
        for delta in (-513, -512, -511, -2, -1, 0, 1, 511, 512):
            start = end + delta
            patches = [(at, be(image.packed_word(start, 1), 8))]
            room = stream[:max(0, end - start)]
            if room:
                patches.append((start, room))
            yield Case(f'{base}-packed-at-end{delta:+d}', base, patches,
                       cluster=GUEST_PACKED,
                       read='error' if delta >= 0 else 'any')
        for sectors in (1, 2, 3, 8, 9, 15, 16):
            word = image.packed_word(image.at(PACKED), sectors)
            yield Case(f'{base}-packed-sectors-{sectors}', base,
                       [(at, be(word, 8))], cluster=GUEST_PACKED,
                       read='packed')
            word = image.packed_word(end - 512, sectors)
            yield Case(f'{base}-packed-past-{sectors}', base,
                       [(at, be(word, 8))], cluster=GUEST_PACKED,
                       read='error')


def bombs(bases):
    """R19: streams that want more memory or time than a cluster is worth."""
    image = bases['zstd']
    at = image.at(PACKED)
    for log in range(10, 42):
        frame = zstd_window(image.cluster, log)
        # A block must not be larger than the window.
        yield Case(f'zstd-window-{log}', 'zstd', [(at, frame)],
                   cluster=GUEST_PACKED,
                   read='packed' if log == image.cluster_bits else 'error')
    word = image.packed_word(at, 8)
    empty = b'\x28\xb5\x2f\xfd\x00\x10' + bytes(3) * 1360
    yield Case('zstd-empty-blocks', 'zstd',
               [(at, empty[:4096]), (image.l2_at(GUEST_PACKED), be(word, 8))],
               cluster=GUEST_PACKED, read='error')
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = bomb.compress(bytes(1 << 21)) + bomb.flush()
    image = bases['v3']
    word = image.packed_word(image.at(PACKED), 8)
    yield Case('v3-deflate-bomb', 'v3',
               [(image.at(PACKED), bomb[:4096]),
                (image.l2_at(GUEST_PACKED), be(word, 8))],
               cluster=GUEST_PACKED, read='zero')


def backing_names(bases):
    """Names that lead nowhere, to the image itself, or out of the house."""
    for name in ('backs-itself', 'backs-b', 'backs-missing', 'backs-fifo',
                 'backs-json', 'backs-nbd', 'backs-proc', 'backs-fat'):
        yield Case(name, name, opens='no' if name != 'backs-fat' else 'any')
    image = bases['backs-missing']
    for value in interesting(4):
        yield Case(f'backing-size-{value:x}', 'backs-missing',
                   [(16, be(value, 4))])
    for value in interesting(8):
        yield Case(f'backing-offset-{value:x}', 'backs-missing',
                   [(8, be(value, 8))])
    name_at = struct.unpack('>Q', image.data[8:16])[0]
    yield Case('backing-name-nul', 'backs-missing', [(name_at + 2, b'\0')],
               opens='no')


def overlaps(bases):
    image = bases['v3']
    yield Case('reftable-in-itself', 'v3',
               [(image.at(REFTABLE), be(image.at(REFTABLE), 8))])
    yield Case('l1-in-itself', 'v3', [(image.at(L1), be(image.at(L1) | COPIED,
                                                        8))])
    yield Case('l2-in-itself', 'v3',
               [(image.l2_at(i), be(image.at(L2) | COPIED, 8))
                for i in range(8)])
    yield Case('l2-all-header', 'v3',
               [(image.l2_at(i), be(COPIED | image.at(HEADER), 8))
                for i in range(64)])
    yield Case('l1-all-same-l2', 'v3', [(image.at(L1), be(image.at(L2) |
                                                          COPIED, 8) * 2)])
    yield Case('packed-in-metadata', 'v3',
               [(image.l2_at(GUEST_PACKED),
                 be(image.packed_word(image.at(L2), 8), 8))])
    yield Case('packed-and-zero-flag', 'v3',
               [(image.l2_at(GUEST_PACKED),
                 be(COMPRESSED | COPIED | image.at(PACKED), 8))])


KINDS = [header_fields, cluster_sizes, truncations, l2_bits, packed_bits,
         l1_bits, table_bits, tables_elsewhere, huge_counts, many_snapshots,
         many_bitmaps, packed_sizes, bombs, backing_names, overlaps]


def make_bases():
    packed = zstd_raw(bytes([PACKED_BYTE]) * 4096)
    packed16 = zstd_raw(bytes([PACKED_BYTE]) * 16384)
    bases = {
        'v3': Image(), 'v2': Image(version=2),
        'small': Image(cluster_bits=9),
        'zstd': Image(zstd_stream=packed),
        'extended': Image(cluster_bits=14, extended=True,
                          zstd_stream=packed16),
    }
    # The runner puts a case into the file "image".
    for name, backing, fmt in (
            ('backs-itself', 'image', 'qcow2'), ('backs-b', 'b', 'qcow2'),
            ('backs-missing', 'no-such-file', 'qcow2'),
            ('backs-fifo', 'fifo', 'raw'),
            ('backs-json', 'json:{"driver":"null-co"}', 'raw'),
            ('backs-nbd', 'nbd://localhost/x', 'raw'),
            ('backs-proc', '/proc/self/fd/0', 'raw'),
            ('backs-fat', 'v3', 'qcow2')):
        bases[name] = Image(backing=backing, backing_format=fmt)
    bases['b'] = Image(backing='image')
    return bases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--expand', type=int, metavar='N')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bases = make_bases()
    cases = [Case(f'{name}-as-it-is', name,
                  opens='yes', read='data') for name in
             ('v3', 'v2', 'small', 'zstd', 'extended')]
    for kind in KINDS:
        cases += kind(bases)
    if args.expand:
        for case in cases[::args.expand]:
            data = case.expand(bases)
            if len(data) <= 1 << 20:
                (args.out / case.name).write_bytes(data)
        return 0
    for name, image in bases.items():
        (args.out / name).write_bytes(image.data)
    (args.out / 'cases.txt').write_text(
        ''.join(c.line() + '\n' for c in cases))
    print(f'{len(cases)} cases on {len(bases)} base images')
    return 0


if __name__ == '__main__':
    sys.exit(main())
