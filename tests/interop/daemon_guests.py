#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real daemon whose disk is written, read and asked about by many at once,
while jobs copy it, move it and change its chain.

    daemon_guests.py BG_DAEMON BG_IMG OPERATIONS [SEED]

Guests keep a record of what they wrote when (nbd_guest.py), so each read, each
backup and each export of a point in time can be judged: there must be one
moment at which the disk was that.  Threads of the operating system decide who
comes first, so a seed gives the same operations, but not the same run.
"""
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from nbd_guest import FLUSH, FUA, READ, TRIM, WRITE, WRITE_ZEROES
from nbd_guest import Connection, Disk
from qmp_client import Client, Daemon, wait_for_end

REGION = 16 << 10
SIZE = 16 << 20
WRITERS = 3
JOB_S = 120             # until a job hangs, on a busy machine
CHAIN_MAX = 6
MIB = 1 << 20

program, bg_img = (os.path.abspath(path) for path in sys.argv[1:3])
operations = int(sys.argv[3])
seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 32)

disk = Disk(SIZE, REGION)
stopping = threading.Event()
failures = []


def fail(*what):
    """The first failure ends all; those that follow from it are not told."""
    if not stopping.is_set():
        print('FAIL, seed', seed, *what, flush=True)
    failures.append(what)
    stopping.set()


def expect(why):
    """@why: None, or why something is wrong."""
    if why:
        fail(why)


class Guest(threading.Thread):
    """Does its steps with its own random numbers until all is over."""

    def __init__(self, number, folder):
        super().__init__(name=f'{type(self).__name__} {number}')
        self.number = number
        self.folder = folder
        self.nbd = folder / 'nbd.sock'
        self.random = random.Random(f'{seed} {self.name}')

    def run(self):
        try:
            while not stopping.is_set():
                self.session()
        except Exception as error:          # whatever it is: a failure
            fail(self.name, repr(error))


class Writer(Guest):
    """Regions of its own, several at once, each time through a connection
    that lives for some requests."""

    def __init__(self, number, folder):
        super().__init__(number, folder)
        self.written = 0
        self.under_way = {}     # by cookie: the region, and its record

    def session(self):
        connection = Connection(self.nbd, 'disk')
        for _ in range(self.random.randrange(50, 1000)):
            if stopping.is_set():
                break
            while len(self.under_way) >= self.random.randrange(1, 9):
                self.end_one(connection)
            self.begin_one(connection)
        while self.under_way:
            self.end_one(connection)
        connection.close()

    def end_one(self, connection):
        _, record = self.under_way.pop(connection.reply())
        if record:
            record.ended = time.monotonic_ns()

    def begin_one(self, connection):
        number = self.random.randrange(self.number, len(disk.regions), WRITERS)
        kind = self.random.choices((WRITE, WRITE_ZEROES, TRIM, FLUSH),
                                   (80, 10, 5, 5))[0]
        offset, length, record, data, flags = number * REGION, REGION, None, b'', 0
        if any(other == number for other, _ in self.under_way.values()):
            return
        if kind == FLUSH:
            offset = length = 0
        elif kind == WRITE:
            self.written += 1
            value = (self.number + 1) << 48 | self.written
            record = disk.regions[number].begin(value, False)
            data = disk.fill(value)
            flags = self.random.choice((0, 0, 0, FUA))
        else:
            # A trimmed region may show zeroes, or what it did.
            record = disk.regions[number].begin(0, kind == TRIM)
        cookie = connection.send(kind, offset, length, data, flags)
        self.under_way[cookie] = number, record


class Reader(Guest):
    def session(self):
        connection = Connection(self.nbd, self.random.choice(('disk', 'ro')))
        for _ in range(self.random.randrange(20, 400)):
            if stopping.is_set():
                break
            number = self.random.randrange(len(disk.regions))
            since = time.monotonic_ns()
            data = connection.read(number * REGION, REGION)
            expect(disk.check_read(number, data, since, time.monotonic_ns()))
            time.sleep(self.random.random() / 500)
        connection.close()


class Rude(Guest):
    """Asks for much, says something meaningless, does not wait for the
    answer."""

    def session(self):
        with contextlib.suppress(ConnectionError, EOFError):
            connection = Connection(self.nbd, 'disk')
            connection.read(0, REGION)  # no faster than it is served
            for _ in range(self.random.randrange(1, 20)):
                number = self.random.randrange(len(disk.regions))
                connection.send(READ, number * REGION, REGION)
            if self.random.random() < 0.3:
                connection.socket.sendall(self.random.randbytes(13))
            time.sleep(self.random.random() / 50)
            connection.socket.close()


class Asker(Guest):
    """Control commands that nobody waits for, on whatever node there is; that
    one may be gone meanwhile, or be in use, is no failure."""

    def session(self):
        client = Client(self.folder / 'qmp.sock')
        for _ in range(self.random.randrange(1, 100)):
            if stopping.is_set():
                break
            getattr(self, self.random.choice((
                'ask_nodes', 'ask_nodes', 'ask', 'ask', 'drain', 'read',
                'export', 'stack')))(client)
            client.events.clear()
            time.sleep(self.random.random() / 100)
        client.close()

    def ask_nodes(self, client):
        client.must('query-named-block-nodes', flat=self.random.random() < 0.5)

    def ask(self, client):
        client.must(self.random.choice((
            'query-block-exports', 'query-block-jobs', 'query-jobs',
            'query-blockstats', 'x-debug-query-block-graph')))

    def drain(self, client):
        client.must('transaction', actions=[])

    def some_node(self, client):
        nodes = client.must('query-named-block-nodes', flat=True)
        return self.random.choice(nodes)['node-name']

    def read(self, client):
        at = self.random.randrange(len(disk.regions)) * REGION
        client.ask('human-monitor-command', command_line='qemu-io '
                   f'{self.some_node(client)} "read -q {at} {REGION}"')

    def export(self, client):
        name = f'export-{self.number}'
        if 'error' in client.ask('block-export-add', type='nbd', id=name,
                                 node_name=self.some_node(client), name=name):
            return
        if self.random.random() < 0.5:
            Connection(self.nbd, name).send(READ, 0, 65536)
        client.must('block-export-del', id=name, mode='hard')
        client.wait_event('BLOCK_EXPORT_DELETED', id=name)

    def stack(self, client):
        name = f'stack-{self.number}'
        reply = client.ask('blockdev-add', node_name=name, read_only=True,
                           driver=self.random.choice(('raw', 'copy-on-read')),
                           file=self.some_node(client))
        if 'return' in reply:
            delete_node(client, name)


def must_soon(client, command, **arguments):
    """What is refused while one of those who ask uses a node for a moment."""
    deadline = time.monotonic() + JOB_S
    while 'error' in (reply := client.ask(command, **arguments)):
        if time.monotonic() > deadline:
            raise AssertionError(f'{command} {arguments}: {reply}')
        time.sleep(0.005)


def delete_node(client, name):
    must_soon(client, 'blockdev-del', node_name=name)


class Operator:
    """Who owns the disk: a chain of images, and what is done with it."""

    def __init__(self, folder):
        self.folder = folder
        self.random = random.Random(seed)
        self.names = 0
        self.incremental = None     # a bitmap, and the backup it is for
        name, _ = self.create('d', 'qcow2')
        threads = [f'thread-{i}' for i in range(self.random.choice((0, 2)))]
        self.daemon = Daemon(
            [program], folder,
            *(word for t in threads for word in ('--object',
                                                 f'iothread,id={t}')),
            '--nbd-server', 'addr.type=unix,addr.path=nbd.sock,'
            'max-connections=100,max-connections-per-peer=0',
            stdout=subprocess.DEVNULL)
        self.client = self.daemon.client()
        self.open(name, 'qcow2')
        self.chain = [name]         # the lowest first
        where = {'iothread': self.random.choice(threads)} if threads else {}
        for export, writable in (('disk', True), ('ro', False)):
            self.client.must('block-export-add', type='nbd', id=export,
                             name=export, node_name=name, writable=writable,
                             **where)

    # --- images -------------------------------------------------------------

    def new_name(self, prefix):
        self.names += 1
        return f'{prefix}{self.names}'

    def create(self, prefix, fmt=None, *more):
        name = self.new_name(prefix)
        fmt = fmt or self.random.choice(('raw', 'qcow2'))
        options = self.random.choice((
            'cluster_size=4k', 'cluster_size=64k', 'cluster_size=1M',
            'lazy_refcounts=on', 'extended_l2=on'))
        self.run(bg_img, 'create', '-q', '-f', fmt,
                 *(('-o', options) if fmt == 'qcow2' else ()), *more,
                 f'{name}.{fmt}', str(SIZE))
        return name, fmt

    def run(self, *command):
        done = subprocess.run(command, cwd=self.folder, text=True, check=False,
                              capture_output=True, timeout=JOB_S)
        if done.returncode != 0:
            raise AssertionError(f'{command}: {done.stdout}{done.stderr}')

    def open(self, name, fmt, **more):
        self.client.must('blockdev-add', driver=fmt, node_name=name,
                         discard='unmap',
                         file={'driver': 'file', 'filename': f'{name}.{fmt}'},
                         **more)

    def format_of(self, name):
        return 'raw' if (self.folder / f'{name}.raw').exists() else 'qcow2'

    def drop(self, *names):
        """Nobody needs these images any more, which are sound."""
        for name in names:
            fmt = self.format_of(name)
            delete_node(self.client, name)
            self.check(name, fmt)
            (self.folder / f'{name}.{fmt}').unlink()

    def check(self, name, fmt):
        if fmt == 'qcow2':
            self.run('qemu-img', 'check', '-q', '-U', '-f', fmt,
                     f'{name}.{fmt}')

    def read_export(self, node):
        """All of @node, as a client sees it."""
        name = self.new_name('look')
        self.client.must('block-export-add', type='nbd', id=name, name=name,
                         node_name=node)
        connection = Connection(self.folder / 'nbd.sock', name)
        data = connection.read_all(SIZE)
        connection.close()
        self.client.must('block-export-del', id=name, mode='hard')
        self.client.wait_event('BLOCK_EXPORT_DELETED', id=name)
        return data

    # --- jobs ---------------------------------------------------------------

    def start(self, command, **arguments):
        """The name of the job, and when at the earliest and the latest it has
        begun."""
        job = self.new_name('job')
        since = time.monotonic_ns()
        must_soon(self.client, command, job_id=job, auto_dismiss=False,
                  **arguments)
        return job, since, time.monotonic_ns()

    def speed(self):
        return self.random.choice((0, 0, 0, 4 * MIB, 50 * MIB))

    def look(self, job):
        for state in self.client.must('query-jobs'):
            if state['id'] == job:
                return state
        raise AssertionError(f'{job} is gone')

    def finish(self, job, complete='job-complete'):
        """Until @job is concluded, disturbed meanwhile.  Whether it has done
        its work; else it was cancelled."""
        deadline = time.monotonic() + JOB_S
        cancelled = told = False
        while (state := self.look(job))['status'] != 'concluded':
            if time.monotonic() > deadline:
                raise AssertionError(f'{job} hangs: {state}')
            dice = self.random.random()
            if state['status'] == 'ready' and not told and dice < 0.7:
                # A second 'block-job-cancel' may come behind 'ready'.
                told = True
                self.client.ask(complete, **{'id' if complete == 'job-complete'
                                             else 'device': job})
            elif dice < 0.01:
                self.client.ask('job-cancel', id=job)
                cancelled = True
            elif dice < 0.2:
                self.client.ask('block-job-set-speed', device=job,
                                speed=self.random.choice((0, 20 * MIB)))
            elif dice < 0.25:
                self.client.ask('job-pause', id=job)
                self.client.ask('job-resume', id=job)
            elif dice < 0.27:
                self.reopen()
            else:
                time.sleep(0.005)
        if 'error' in state and not cancelled:
            fail(state)
        self.client.must('job-dismiss', id=job)
        return 'error' not in state

    # --- operations ---------------------------------------------------------

    def snapshot(self):
        if len(self.chain) == CHAIN_MAX:
            return
        below = self.chain[-1]
        fmt = self.format_of(below)
        name, _ = self.create('d', 'qcow2', '-u', '-b', f'{below}.{fmt}', '-F',
                              fmt)
        self.open(name, 'qcow2', backing=None)
        must_soon(self.client, 'blockdev-snapshot', node=below, overlay=name)
        self.chain.append(name)
        self.forget_incremental()

    def merge(self, base, top):
        """The images above @base up to @top are in one of them now."""
        gone = self.chain[base:top]
        del self.chain[base:top]
        self.drop(*reversed(gone))

    def commit(self):
        if len(self.chain) < 3:
            return
        base, top = sorted(self.random.sample(range(len(self.chain) - 1), 2))
        job, _, _ = self.start('block-commit', device=self.chain[-1],
                               top_node=self.chain[top],
                               base_node=self.chain[base], speed=self.speed())
        if self.finish(job):
            self.merge(base + 1, top + 1)

    def commit_active(self):
        if len(self.chain) < 2:
            return
        base = self.random.randrange(len(self.chain) - 1)
        job, _, _ = self.start('block-commit', device=self.chain[-1],
                               base_node=self.chain[base], speed=self.speed())
        if self.finish(job):
            self.forget_incremental()
            self.merge(base + 1, len(self.chain))

    def stream(self):
        if len(self.chain) < 2:
            return
        top = self.random.randrange(1, len(self.chain))
        base = self.random.randrange(-1, top)
        more = {'base_node': self.chain[base]} if base >= 0 else {}
        job, _, _ = self.start('block-stream', device=self.chain[top],
                               speed=self.speed(), **more)
        if self.finish(job):
            self.merge(base + 1, top)

    def backup(self):
        name, fmt = self.create('b')
        self.open(name, fmt)
        point = self.new_name('point')
        two = self.random.random() < 0.3
        job, since, until = self.start(
            'blockdev-backup', device=self.chain[-1], target=name, sync='full',
            speed=MIB if two else self.speed(), filter_node_name=point,
            x_perf={'use-copy-range': self.random.random() < 0.5,
                    'max-workers': self.random.choice((1, 4, 64))})
        if two:
            self.fleece(point)  # a filter above that of the other
        if self.finish(job):
            expect(disk.check_moment(self.read_export(name), since, until))
        self.drop(name)

    def mirror(self):
        name, fmt = self.create('m')
        self.open(name, fmt)
        complete = self.random.choice(('job-complete', 'block-job-cancel'))
        job, since, _ = self.start(
            'blockdev-mirror', device=self.chain[-1], target=name, sync='full',
            speed=self.speed(),
            copy_mode=self.random.choice(('background', 'write-blocking')))
        done = self.finish(job, complete)
        if done and complete == 'job-complete':
            self.forget_incremental()
            gone, self.chain = self.chain, [name]
            self.drop(*reversed(gone))
            return
        if done:
            expect(disk.check_moment(self.read_export(name), since,
                                     time.monotonic_ns()))
        self.drop(name)

    def forget_incremental(self):
        """The image that its bitmap is about is not the active one now."""
        if self.incremental:
            node, bitmap, name = self.incremental
            self.incremental = None
            self.client.ask('block-dirty-bitmap-remove', node=node,
                            name=bitmap)
            self.drop(name)

    def start_incremental(self):
        """The full backup that the next ones bring up to date."""
        bitmap, job = self.new_name('bitmap'), self.new_name('job')
        name, fmt = self.create('i')
        self.open(name, fmt)
        self.incremental = self.chain[-1], bitmap, name
        since = time.monotonic_ns()
        must_soon(self.client, 'transaction', actions=[
            {'type': 'block-dirty-bitmap-add',
             'data': {'node': self.chain[-1], 'name': bitmap}},
            {'type': 'blockdev-backup',
             'data': {'job-id': job, 'device': self.chain[-1], 'target': name,
                      'sync': 'full', 'auto-dismiss': False}}])
        return job, since, time.monotonic_ns()

    def backup_incremental(self):
        if self.incremental:
            node, bitmap, name = self.incremental
            job, since, until = self.start(
                'blockdev-backup', device=node, target=name, bitmap=bitmap,
                sync='incremental', speed=self.speed())
        else:
            job, since, until = self.start_incremental()
        if self.finish(job):
            data = self.read_export(self.incremental[2])
            expect(disk.check_moment(data, since, until))
        else:
            self.forget_incremental()

    def fleece(self, device=None):
        """An export of the moment at which a backup of nothing began."""
        name, _ = self.create('f', 'qcow2')
        point = self.new_name('point')
        self.open(name, 'qcow2')
        job, since, until = self.start(
            'blockdev-backup', device=device or self.chain[-1], target=name,
            sync='none', filter_node_name=point)
        self.client.must('blockdev-add', driver='snapshot-access',
                         node_name=f'{name}-view', file=point)
        expect(disk.check_moment(self.read_export(f'{name}-view'), since,
                                 until))
        delete_node(self.client, f'{name}-view')
        self.client.must('job-cancel', id=job)
        self.client.wait_event('BLOCK_JOB_CANCELLED', device=job)
        while self.look(job)['status'] != 'concluded':
            time.sleep(0.005)
        self.client.must('job-dismiss', id=job)
        self.drop(name)

    def snapshot_internal(self):
        node, name = self.chain[-1], self.new_name('s')
        if self.format_of(node) == 'qcow2':
            must_soon(self.client, 'blockdev-snapshot-internal-sync',
                      device=node, name=name)
            time.sleep(self.random.random() / 10)
            must_soon(self.client, 'blockdev-snapshot-delete-internal-sync',
                      device=node, name=name)

    def reopen(self):
        """With other options; an edge that a job holds refuses it."""
        node = self.random.choice(self.chain)
        [state] = [n for n in self.client.must('query-named-block-nodes',
                                               flat=True)
                   if n['node-name'] == node]
        children = {c['child']: c['node-name'] for c in state['children']}
        options = {'driver': state['drv'], 'node-name': node,
                   'file': children['file'], 'read-only': state['ro'],
                   'discard': self.random.choice(('ignore', 'unmap'))}
        if state['drv'] == 'qcow2':
            options['backing'] = children.get('backing')
            options['l2-cache-size'] = self.random.choice((65536, MIB))
            options['lazy-refcounts'] = self.random.random() < 0.5
        self.client.ask('blockdev-reopen', options=[options])

    # --- all of it ----------------------------------------------------------

    def work(self):
        for _ in range(operations):
            if stopping.is_set():
                return
            self.random.choice((
                self.snapshot, self.snapshot, self.commit, self.commit_active,
                self.stream, self.backup, self.mirror, self.backup_incremental,
                self.backup_incremental, self.fleece, self.snapshot_internal,
                self.reopen))()
            self.client.events.clear()
            time.sleep(self.random.random() / 10)

    def end(self):
        """The disk is what was written last, also after the end."""
        since = time.monotonic_ns()
        self.forget_incremental()
        expect(disk.check_moment(self.read_export(self.chain[-1]), since,
                                 time.monotonic_ns()))
        self.client.must('quit')
        if self.daemon.end() != 0:
            fail('the daemon ends with', self.daemon.process.returncode)
        top = self.chain[-1]
        self.run(bg_img, 'convert', '-f', self.format_of(top), '-O', 'raw',
                 f'{top}.{self.format_of(top)}', 'copy')
        expect(disk.check_moment((self.folder / 'copy').read_bytes(), since,
                                 since))
        for name in self.chain:
            self.check(name, self.format_of(name))


def main():
    if not shutil.which('qemu-img'):
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        operator = Operator(folder)
        guests = [kind(number, folder)
                  for kind, number_of in ((Writer, WRITERS), (Reader, 2),
                                          (Rude, 1), (Asker, 2))
                  for number in range(number_of)]
        try:
            for guest in guests:
                guest.start()
            operator.work()
            stopping.set()
            for guest in guests:
                guest.join()
            if not failures:
                operator.end()
        except Exception as error:              # as of the guests
            fail('operator', repr(error))
        finally:
            stopping.set()
            operator.daemon.kill()
            wait_for_end(operator.daemon.process.pid)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
