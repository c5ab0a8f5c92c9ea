#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-daemon is killed while a guest writes and a backup runs.

    daemon_killed.py BG_DAEMON [SEED [ROUNDS]]

Each round goes on with the image that the last one left: a guest writes over
NBD and flushes, a job copies the disk, a bitmap that is to be kept records, and
after a number of writes that the seed says the daemon gets SIGKILL, with writes
in flight.  The images must be whole, clusters that are lost excepted, and
every block must have what was written to it before the last good flush, or
later.  Exit status 77: no qemu-img.
"""
import json
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qmp_client import TIMEOUT_S, Client, Daemon

BLOCK = 4096
NR_BLOCKS = 2048
NR_AHEAD = 16       # writes in flight when the daemon is killed
NR_WRITES_MAX = 600
CHECK_LEAKS = 3     # exit status of a check that found nothing worse

OPT_GO, REP_ACK, CMD_WRITE, CMD_FLUSH = 7, 1, 1, 3


class Guest:
    """Writes to the disk, and what it knows of each block."""

    def __init__(self, path):
        self.socket = Client.connect_unix(path)
        self.negotiate(b'disk')
        self.written = {}   # of each block, the number that was sent last
        self.flushed = {}   # the last that a flush has made last
        self.number = 0

    def receive(self, size):
        data = b''
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def negotiate(self, name):
        self.receive(18)
        self.socket.sendall(struct.pack('>I', 3))
        data = struct.pack('>I', len(name)) + name + struct.pack('>H', 0)
        self.socket.sendall(b'IHAVEOPT' +
                            struct.pack('>II', OPT_GO, len(data)) + data)
        kind = None
        while kind != REP_ACK:
            _, _, kind, size = struct.unpack('>QIII', self.receive(20))
            assert kind in (REP_ACK, 3), kind
            self.receive(size)

    def request(self, kind, offset=0, data=b'', size=0):
        self.socket.sendall(struct.pack('>IHHQQI', 0x25609513, 0, kind, 1,
                                        offset, size) + data)

    def reply(self):
        _, error, _ = struct.unpack('>IIQ', self.receive(16))
        assert error == 0, error

    def send_write(self, block, first):
        """@first: numbers go on from those of the last round."""
        self.number += 1
        number = first + self.number
        self.written[block] = number
        self.request(CMD_WRITE, block * BLOCK,
                     struct.pack('>Q', number) * (BLOCK // 8), BLOCK)

    def flush(self):
        self.request(CMD_FLUSH)
        self.reply()
        self.flushed = dict(self.written)


def must(folder, *words):
    return subprocess.run(words, cwd=folder, check=True, text=True,
                          capture_output=True, timeout=TIMEOUT_S).stdout


def node(name, filename):
    return {'driver': 'qcow2', 'node-name': name,
            'file': {'driver': 'file', 'filename': filename}}


def start(program, folder):
    # The sockets of the daemon that was killed are there, and are replaced; its
    # process number would be taken for that of the new one.
    (Path(folder) / 'qmp.pid').unlink(missing_ok=True)
    return Daemon([program], folder)


def store_bitmap(program, folder):
    """A bitmap gets into the image when its node is closed.  One of a daemon
    that was killed is not to be trusted, and can be removed."""
    daemon = start(program, folder)
    try:
        client = daemon.client()
        client.must('blockdev-add', **node('disk', 'disk.qcow2'))
        known = client.must('query-named-block-nodes', flat=True)
        for bitmap in next(n for n in known if n['node-name'] == 'disk').get(
                'dirty-bitmaps', []):
            assert bitmap.get('inconsistent'), bitmap
            client.must('block-dirty-bitmap-remove', node='disk',
                        name=bitmap['name'])
        client.must('block-dirty-bitmap-add', node='disk', name='kept',
                    persistent=True)
        client.ask('quit')
        assert daemon.end() == 0
    finally:
        daemon.kill()


def serve(client):
    for name in 'disk', 'copy':
        client.must('blockdev-add', **node(name, f'{name}.qcow2'))
    client.must('nbd-server-start',
                addr={'type': 'unix', 'data': {'path': 'nbd.sock'}})
    client.must('block-export-add', type='nbd', id='e', node_name='disk',
                name='disk', writable=True)


def write_until_killed(program, folder, chance, first):
    must(folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', 'copy.qcow2',
         str(NR_BLOCKS * BLOCK))
    daemon = start(program, folder)
    try:
        client = daemon.client()
        serve(client)
        guest = Guest(Path(folder) / 'nbd.sock')
        start_at = chance.randrange(NR_WRITES_MAX // 2)
        for number in range(chance.randrange(1, NR_WRITES_MAX)):
            if number == start_at:
                client.must('blockdev-backup', device='disk', target='copy',
                            sync='full', job_id='j', speed=1 << 22)
            guest.send_write(chance.randrange(NR_BLOCKS), first)
            guest.reply()
            if chance.random() < 0.05:
                guest.flush()
        # Some of these are done when the daemon ends, others are not.  Each
        # block once: they may be done in any order.
        for block in chance.sample(range(NR_BLOCKS),
                                   chance.randrange(NR_AHEAD + 1)):
            guest.send_write(block, first)
    finally:
        daemon.kill()
    return guest


def check_image(folder, image):
    """The kernel ends the io_uring of a process, which has the files open and
    locked, some time after the process; nothing tells when."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        done = subprocess.run(['qemu-img', 'check', '-f', 'qcow2', image],
                              cwd=folder, text=True, capture_output=True,
                              timeout=TIMEOUT_S, check=False)
        if ' lock' not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert done.returncode in (0, CHECK_LEAKS), done


def check_blocks(folder, may_be):
    """@may_be: of each block, the least and the greatest number."""
    must(folder, 'qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw',
         'disk.qcow2', 'disk.raw')
    data = (Path(folder) / 'disk.raw').read_bytes()
    found = {}
    for block in range(NR_BLOCKS):
        part = data[block * BLOCK:(block + 1) * BLOCK]
        number = struct.unpack('>Q', part[:8])[0]
        least, most = may_be.get(block, (0, 0))
        assert part == part[:8] * (BLOCK // 8), f'block {block} is torn'
        assert least <= number <= most, (
            f'block {block} has {number}: it was {least} when flushed, and '
            f'{most} was the last')
        found[block] = number
    return found


def bitmaps(folder):
    info = json.loads(must(folder, 'qemu-img', 'info', '-f', 'qcow2',
                           '--output=json', 'disk.qcow2'))
    return info['format-specific']['data'].get('bitmaps', [])


def main():
    program = str(Path(sys.argv[1]).resolve())
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 6
    if not shutil.which('qemu-img'):
        print('no qemu-img')
        return 77
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        must(folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', 'disk.qcow2',
             str(NR_BLOCKS * BLOCK))
        found, first = {}, 0
        for number in range(rounds):
            print(f'seed {seed}, round {number}', flush=True)
            store_bitmap(program, folder)
            guest = write_until_killed(program, folder, chance, first)
            for image in 'disk.qcow2', 'copy.qcow2':
                check_image(folder, image)
            old = [b for b in bitmaps(folder) if b['name'] == 'kept']
            assert old and 'in-use' in old[0]['flags'], old
            found = check_blocks(folder, {
                block: (guest.flushed.get(block, found.get(block, 0)),
                        guest.written.get(block, found.get(block, 0)))
                for block in range(NR_BLOCKS)})
            first += guest.number
    return 0


if __name__ == '__main__':
    sys.exit(main())
