# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small NBD client, and a record of what a disk may show at which time."""
import socket
import struct
import threading
import time

TIMEOUT_S = 120

READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1

OPT_GO, REP_ACK, REP_INFO = 7, 1, 3
OPTION_MAGIC = b'IHAVEOPT'
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698


class Connection:
    """One connection with simple replies; several requests may be under way.

    The protocol: https://github.com/NetworkBlockDevice/nbd, doc/proto.md."""

    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(str(path))
        self.cookie = 0
        self.choose(export.encode())

    def choose(self, name):
        assert self.receive(18).startswith(b'NBDMAGIC' + OPTION_MAGIC)
        self.socket.sendall(
            struct.pack('>I', 3) + OPTION_MAGIC +
            struct.pack('>III', OPT_GO, len(name) + 6, len(name)) + name +
            struct.pack('>H', 0))
        while True:
            _, _, kind, length = struct.unpack('>QIII', self.receive(20))
            text = self.receive(length)
            if kind == REP_ACK:
                return
            if kind != REP_INFO:
                raise OSError(f'export {name}: {kind:x} {text}')

    def receive(self, length):
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise EOFError('the server has closed the connection')
            data += more
        return bytes(data)

    def send(self, command, offset, length, data=b'', flags=0):
        """The cookie of the request."""
        self.cookie += 1
        self.socket.sendall(struct.pack('>IHHQQI', REQUEST_MAGIC, flags,
                                        command, self.cookie, offset, length)
                            + data)
        return self.cookie

    def reply(self):
        """The cookie of a request that has ended well, any."""
        magic, error, cookie = struct.unpack('>IIQ', self.receive(16))
        assert magic == REPLY_MAGIC, hex(magic)
        if error:
            raise OSError(error, f'request {cookie}')
        return cookie

    def read(self, offset, length):
        """Nothing else may be under way."""
        self.send(READ, offset, length)
        self.reply()
        return self.receive(length)

    def read_all(self, size, piece=1 << 20):
        return b''.join(self.read(offset, min(piece, size - offset))
                        for offset in range(0, size, piece))

    def close(self):
        try:
            self.send(DISCONNECT, 0, 0)
        except OSError:
            pass    # it has gone already
        self.socket.close()


class Write:
    """What a region is told to show; @maybe: or what it showed before."""

    def __init__(self, value, maybe):
        self.value = value
        self.maybe = maybe
        self.begun = time.monotonic_ns()
        self.ended = None


class Region:
    """The writes to it in their order; no two at once.

    A value can be seen from when its write has begun until the next one that
    surely changes it has ended."""

    def __init__(self):
        self.lock = threading.Lock()
        first = Write(0, False)
        first.begun = first.ended = 0
        self.writes = [first]

    def begin(self, value, maybe):
        with self.lock:
            write = Write(value, maybe)
            self.writes.append(write)
        return write

    def spans(self, value, since, until):
        """The parts of the time from @since to @until in which @value could be
        seen."""
        spans = []
        end = until     # of what is before the writes looked at so far
        with self.lock:
            for write in reversed(self.writes):
                if write.value == value and write.begun <= end:
                    spans.append((max(write.begun, since), end))
                if not write.maybe and write.ended is not None:
                    end = min(end, write.ended)
                if end < since:
                    break
        return spans

    def tail(self, since):
        """The last writes, in words."""
        return ', '.join(f'{w.value:x} {w.begun - since} to '
                         f'{w.ended and w.ended - since}'
                         for w in self.writes[-6:])


class Disk:
    """What guests have written to a disk that was zero, region by region.

    A region is filled with a number that nobody has written before."""

    def __init__(self, size, region_size):
        self.size = size
        self.region_size = region_size
        self.regions = [Region() for _ in range(size // region_size)]

    def fill(self, value):
        return struct.pack('<Q', value) * (self.region_size // 8)

    def values(self, data):
        return set(struct.unpack(f'<{len(data) // 8}Q', data))

    def check_read(self, number, data, since, until):
        """None, or why the region could not read as @data in that time.  Of a
        write that runs meanwhile parts may be there."""
        region = self.regions[number]
        for value in self.values(data):
            if not region.spans(value, since, until):
                return (f'region {number} shows {value:x}, in {until - since} '
                        f'ns; written: {region.tail(since)}')
        return None

    def check_moment(self, data, since, until):
        """None, or why @data was the disk at no moment of that time."""
        marks = []
        for number, region in enumerate(self.regions):
            start = number * self.region_size
            values = self.values(data[start:start + self.region_size])
            if len(values) != 1:
                return f'region {number} is torn: {values}'
            spans = region.spans(values.pop(), since, until)
            if not spans:
                return self.check_read(number,
                                       data[start:start + self.region_size],
                                       since, until)
            marks += marks_of(spans)
        best = at_once = 0
        for _, _, step in sorted(marks):
            at_once += step
            best = max(best, at_once)
        if best < len(self.regions):
            return (f'no moment has all regions, at best {best} of '
                    f'{len(self.regions)}')
        return None


def marks_of(spans):
    """Where the union of @spans begins and ends: (time, order, step)."""
    union = []
    for begin, end in sorted(spans):
        if union and begin <= union[-1][1]:
            union[-1][1] = max(union[-1][1], end)
        else:
            union.append([begin, end])
    return [mark for begin, end in union
            for mark in ((begin, 0, 1), (end, 1, -1))]
