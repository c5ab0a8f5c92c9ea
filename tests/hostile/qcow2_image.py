# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small qcow2 images, made byte by byte from the format's specification.

One layout for all, so that whoever spoils an image knows where everything is.
It has of every kind of thing one: a snapshot that shares a cluster, a stored
bitmap, clusters that are normal, zero, compressed and unallocated.
"""
import struct
import zlib

HEADER, REFTABLE, REFBLOCK, L1, L2, DATA, ZERO, PACKED, SNAPSHOTS, SNAP_L1, \
    SNAP_L2, BITMAP_DIR, BITMAP_TABLE, BITMAP_BITS, CLUSTERS = range(15)

COPIED = 1 << 63
COMPRESSED = 1 << 62

EXT_BITMAPS = 0x23852875
EXT_BACKING_FORMAT = 0xe2792aca
EXT_FEATURES = 0x6803f857
EXT_CRYPTO = 0x0537be77
EXT_DATA_FILE = 0x44415441

# What the guest sees in the first clusters, by cluster.
GUEST_DATA, GUEST_ZERO, GUEST_PACKED, GUEST_SHARED, GUEST_NONE = range(5)
DATA_BYTE, PACKED_BYTE = 0xd1, 0xc0

# Offset and size of each field of the header.
FIELDS = {
    'magic': (0, 4), 'version': (4, 4), 'backing_offset': (8, 8),
    'backing_size': (16, 4), 'cluster_bits': (20, 4), 'size': (24, 8),
    'crypt_method': (32, 4), 'l1_size': (36, 4), 'l1_offset': (40, 8),
    'reftable_offset': (48, 8), 'reftable_clusters': (56, 4),
    'nb_snapshots': (60, 4), 'snapshots_offset': (64, 8),
    'incompatible': (72, 8), 'compatible': (80, 8), 'autoclear': (88, 8),
    'refcount_order': (96, 4), 'header_length': (100, 4),
    'compression_type': (104, 1),
}


class Image:
    """The bytes of an image, and where things are in it."""

    def __init__(self, version=3, cluster_bits=12, refcount_order=4,
                 extended=False, zstd_stream=None, backing=None,
                 backing_format='qcow2'):
        self.version = version
        self.cluster = 1 << cluster_bits
        self.cluster_bits = cluster_bits
        self.refcount_order = refcount_order
        self.extended = extended
        self.entry = 16 if extended else 8
        self.size = 1024 * self.cluster
        self.data = bytearray(CLUSTERS * self.cluster)
        self.zstd_stream = zstd_stream
        self.backing = backing
        self.backing_format = backing_format
        self.extensions = []
        self._header()
        self._refcounts()
        self._tables()
        self._snapshots()
        if version >= 3:
            self._bitmaps()

    def at(self, cluster, into=0):
        return cluster * self.cluster + into

    def put(self, offset, data):
        self.data[offset:offset + len(data)] = data

    def put64(self, offset, value):
        self.put(offset, struct.pack('>Q', value))

    def field(self, name):
        return FIELDS[name]

    # --- parts ---------------------------------------------------------------

    def _incompatible(self):
        bits = 0
        if self.zstd_stream:
            bits |= 1 << 3
        if self.extended:
            bits |= 1 << 4
        return bits

    def _header(self):
        h = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', self.version, 0, 0,
                        self.cluster_bits, self.size, 0, self._l1_entries(),
                        self.at(L1), self.at(REFTABLE), 1, 1,
                        self.at(SNAPSHOTS))
        if self.version >= 3:
            h += struct.pack('>QQQIIB7x', self._incompatible(), 0, 1,
                             self.refcount_order, 112,
                             1 if self.zstd_stream else 0)
            self.ext_start = len(h)
            bitmaps = struct.pack('>IIQQ', 1, 0, self._dir_bytes(),
                                  self.at(BITMAP_DIR))
            self.bitmaps_ext = len(h) + 8
            h += struct.pack('>II', EXT_BITMAPS, len(bitmaps)) + bitmaps
            if self.backing:
                fmt = self.backing_format.encode()
                h += struct.pack('>II', EXT_BACKING_FORMAT, len(fmt))
                h += fmt + bytes(-len(fmt) % 8)
            h += struct.pack('>II', 0, 0)
        if self.backing:
            name = self.backing.encode()
            self.put(0, h + name)
            self.put(8, struct.pack('>QI', len(h), len(name)))
            h = bytes(self.data[:len(h) + len(name)])
        self.put(0, h)

    def _l1_entries(self):
        l2_bytes = self.cluster // self.entry * self.cluster
        return -(-self.size // l2_bytes)

    def _refcounts(self):
        self.put64(self.at(REFTABLE), self.at(REFBLOCK))
        for cluster in range(CLUSTERS if self.version >= 3 else BITMAP_DIR):
            self.refcount(cluster, 2 if cluster == PACKED else 1)

    def refcount(self, cluster, value):
        bits = 1 << self.refcount_order
        at = self.at(REFBLOCK) + cluster * bits // 8
        if bits >= 8:
            self.put(at, value.to_bytes(bits // 8, 'big'))
        else:
            shift = cluster * bits % 8
            self.data[at] &= ~(((1 << bits) - 1) << shift)
            self.data[at] |= value << shift

    def l2_at(self, index, snapshot=False):
        """Where entry number @index of the L2 table is."""
        return self.at(SNAP_L2 if snapshot else L2, index * self.entry)

    def _entry(self, index, word, bitmap=0, snapshot=False):
        at = self.l2_at(index, snapshot)
        self.put64(at, word)
        if self.extended:
            self.put64(at + 8, bitmap)

    def packed_word(self, offset, sectors):
        shift = 62 - (self.cluster_bits - 8)
        return COMPRESSED | offset | (sectors - 1) << shift

    def _tables(self):
        full = 0xffffffff
        self.put64(self.at(L1), self.at(L2) | COPIED)
        self._entry(GUEST_DATA, self.at(DATA) | COPIED, full)
        if self.extended:
            self._entry(GUEST_ZERO, self.at(ZERO) | COPIED, full << 32)
        elif self.version >= 3:
            self._entry(GUEST_ZERO, self.at(ZERO) | COPIED | 1)
        else:
            self._entry(GUEST_ZERO, self.at(ZERO) | COPIED)
        stream = self.zstd_stream or deflate(bytes([PACKED_BYTE]) *
                                             self.cluster)
        self.packed_sectors = -(-len(stream) // 512)
        self.put(self.at(PACKED), stream)
        word = self.packed_word(self.at(PACKED), self.packed_sectors)
        self._entry(GUEST_PACKED, word)
        self.put(self.at(DATA), bytes([DATA_BYTE]) * self.cluster)
        # The snapshot has the compressed cluster, too.
        self.put64(self.at(SNAP_L1), self.at(SNAP_L2) | COPIED)
        self._entry(GUEST_PACKED, word, snapshot=True)

    def _snapshots(self):
        extra = struct.pack('>QQQ', 0, self.size, 0xffffffffffffffff)
        head = struct.pack('>QIHHIIQII', self.at(SNAP_L1),
                           self._l1_entries(), 1, 4, 1700000000, 0, 0, 0,
                           len(extra))
        self.put(self.at(SNAPSHOTS), head + extra + b'1' + b'snap')

    def _dir_bytes(self):
        return 24 + 8

    def _bitmaps(self):
        bits = self.size // 65536 or 1
        nr = -(-(-(-bits // 8)) // self.cluster)
        self.put(self.at(BITMAP_DIR),
                 struct.pack('>QIIBBHI', self.at(BITMAP_TABLE), nr, 2, 1, 16,
                             4, 0) + b'bits' + bytes(4))
        self.put64(self.at(BITMAP_TABLE), self.at(BITMAP_BITS))
        self.data[self.at(BITMAP_BITS)] = 1


def deflate(data):
    z = zlib.compressobj(9, zlib.DEFLATED, -12)
    return z.compress(data) + z.flush()


def zstd_raw(data):
    """A zstd frame of raw or repeated blocks; no library needed."""
    out = b'\x28\xb5\x2f\xfd' + bytes([0xa0]) + struct.pack('<I', len(data))
    assert len(set(data)) == 1
    left = len(data)
    while left:
        nr = min(left, 65536)
        left -= nr
        head = (nr << 3) | (1 << 1) | (left == 0)
        out += struct.pack('<I', head)[:3] + data[:1]
    return out


def zstd_window(bytes_, window_log):
    """A frame without content size whose window is 1 << window_log."""
    out = b'\x28\xb5\x2f\xfd' + bytes([0x00, (window_log - 10) << 3])
    head = (bytes_ << 3) | (1 << 1) | 1
    return out + struct.pack('<I', head)[:3] + bytes([PACKED_BYTE])
