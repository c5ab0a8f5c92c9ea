#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver "nbd" as a client of other people's servers.

    nbd_servers.py BG_IMG BG_IO

qemu-nbd and nbdkit, also with its filters that fail, delay and serve parts.
What is read, written, mapped is compared with the image itself.  Exit status
77: none of the servers is installed.
"""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from qmp_client import wait_for_file

TIMEOUT_S = 60
MIB = 1 << 20
TCP_PORT = 10000 + os.getpid() % 20000

# The option for a file that is made when the server listens.
PID_FILE = {'qemu-nbd': '--pid-file', 'nbdkit': '-P'}

failures = []


def run(*command, ok=True):
    done = subprocess.run([str(c) for c in command], text=True,
                          capture_output=True, timeout=TIMEOUT_S, check=False)
    if ok and done.returncode != 0:
        failures.append(command)
        print('FAIL', *command, done.stdout, done.stderr, sep='\n')
    return done


def check(what, right):
    if not right:
        failures.append(what)
        print('FAIL', what)


class Server:
    """A server that listens at @socket while in the with statement."""
    def __init__(self, socket, program, *more):
        self.socket = socket
        self.pid_file = socket.with_suffix('.pid')
        self.command = [program, PID_FILE[program], str(self.pid_file),
                        *(str(c) for c in more)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command)
        wait_for_file(self.process, self.pid_file)  # it listens before
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(TIMEOUT_S)
        self.socket.unlink(missing_ok=True)
        self.pid_file.unlink(missing_ok=True)


def node(socket, more=''):
    return f'driver=raw,file.driver=nbd,file.path={socket}{more}'


def prepare(folder):
    disk = folder / 'disk'
    data = bytearray(8 * MIB)
    for start, byte in ((0, 1), (MIB, 2), (5 * MIB, 3)):
        data[start:start + 65536] = bytes([byte]) * 65536
    disk.write_bytes(data)
    run('fallocate', '-p', '-o', 2 * MIB, '-l', 2 * MIB, disk)
    return disk


def same_as(bg_img, disk, source, folder):
    """What the client reads is what the image has; twice, by ways."""
    copy = folder / 'copy'
    run(bg_img, 'convert', '--image-opts', '-O', 'raw', source, copy)
    check('the copy is equal', copy.read_bytes() == disk.read_bytes())
    run(bg_img, 'compare', '--image-opts', source,
        f'driver=raw,file.driver=file,file.filename={disk}')
    copy.unlink()


def write_through(bg_io, disk, source):
    run(bg_io, '--image-opts', source, '-c', 'write -P 7 3M 1M', '-c',
        'write -z 1M 64k', '-c', 'write -f -P 8 100 1000', '-c', 'flush',
        '-c', 'discard 5M 64k', '-c', 'read -P 7 3M 1M', '-c',
        'read -P 0 1M 64k')
    data = disk.read_bytes()
    check('it was written', data[3 * MIB:4 * MIB] == bytes([7]) * MIB and
          data[100:1100] == bytes([8]) * 1000 and
          data[MIB:MIB + 65536] == bytes(65536))


def with_qemu_nbd(bg_img, bg_io, folder):
    disk, socket = prepare(folder), folder / 's'
    qcow2 = folder / 'q'
    for more in ('', ',file.multi-conn=4'):
        with Server(socket, 'qemu-nbd', '-t', '-e', 8, '-f', 'raw', '-k',
                    socket, '--discard=unmap', disk):
            same_as(bg_img, disk, node(socket, more), folder)
            write_through(bg_io, disk, node(socket, more))
        disk = prepare(folder)
    with Server(socket, 'qemu-nbd', '-t', '-r', '-f', 'raw', '-x', 'name', '-k',
                socket, disk):
        source = node(socket, ',file.export=name')
        same_as(bg_img, disk, source, folder)
        check('no such export', run(bg_img, 'info', '--image-opts',
                                    node(socket), ok=False).returncode == 1)
        check('read-only', run(bg_io, '--image-opts', source, '-c',
                               'write 0 512', ok=False).returncode == 1)
    run('qemu-img', 'create', '-q', '-f', 'qcow2', qcow2, '8M')
    run('qemu-img', 'bitmap', '--add', '-g', '64k', qcow2, 'b')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 2M 128k', qcow2)
    run('qemu-img', 'bitmap', '--disable', qcow2, 'b')
    with Server(socket, 'qemu-nbd', '-t', '-r', '-f', 'qcow2', '-B', 'b', '-k',
                socket, qcow2):
        ours = run(bg_img, 'map', '--output=json', '--image-opts', node(
            socket, ',file.x-dirty-bitmap=qemu:dirty-bitmap:b')).stdout
        dirty = [(e['start'], e['length']) for e in json.loads(ours)
                 if not e['data']]
        check('the bitmap is seen', dirty == [(2 * MIB, 131072)])
        ours = run(bg_img, 'map', '--output=json', '--image-opts',
                   node(socket)).stdout
        zero = [e['length'] for e in json.loads(ours) if e['zero']]
        check('holes are seen', sum(zero) == 8 * MIB - 131072)


def with_nbdkit(bg_img, bg_io, folder):
    disk, socket = prepare(folder), folder / 's'
    nbdkit = ['nbdkit', '-f', '-U', socket]
    with Server(socket, *nbdkit, 'file', disk):
        for more in ('', ',file.multi-conn=8'):
            same_as(bg_img, disk, node(socket, more), folder)
        write_through(bg_io, disk, node(socket))
    with Server(socket, *nbdkit, '--filter=delay', '--filter=noextents',
                'file', disk, 'rdelay=20ms', 'wdelay=20ms'):
        same_as(bg_img, disk, node(socket), folder)
    with Server(socket, *nbdkit, '--filter=offset', 'file', disk,
                f'offset={MIB}', f'range={MIB}'):
        part = folder / 'part'
        part.write_bytes(disk.read_bytes()[MIB:2 * MIB])
        same_as(bg_img, part, node(socket), folder)
    with Server(socket, *nbdkit, '--filter=blocksize-policy', 'file', disk,
                'blocksize-minimum=4k', 'blocksize-maximum=64k',
                'blocksize-error-policy=error'):
        same_as(bg_img, disk, node(socket), folder)
        write_through(bg_io, disk, node(socket))
    for structured in ([], ['--no-sr']):
        with Server(socket, *nbdkit, *structured, '--filter=error', 'file',
                    disk, 'error-pread=EIO', 'error-pread-rate=100%'):
            said = run(bg_io, '--image-opts', '-r', node(socket), '-c',
                       'read 0 512', '-c', 'read 4k 64k', ok=False)
            check('errors arrive', said.stdout.count('Input/output error') +
                  said.stderr.count('Input/output error') == 2)
    # R54: a copy that could not read, or not write, never counts as one.
    for call in ('pread', 'pwrite'):
        with Server(socket, *nbdkit, '--filter=error', 'file', disk,
                    f'error-{call}=EIO', f'error-{call}-rate=100%'):
            sides = ([node(socket), 'driver=null-co,size=8M']
                     if call == 'pread' else
                     [f'driver=raw,file.driver=file,file.filename={disk}',
                      node(socket)])
            said = run(bg_img, 'convert', '-n', '-S', '0', '--image-opts',
                       '--target-image-opts', *sides, ok=False)
            check('a copy fails', said.returncode == 1 and
                  'Input/output error' in said.stderr)
    with Server(socket, *nbdkit, '--no-sr', 'file', disk):
        same_as(bg_img, disk, node(socket), folder)


def same_as_qemu_img(bg_img, name, command):
    """The command prints on the export what qemu-img prints."""
    ours, theirs = (run(program, command, '-f', 'raw', '--output=json',
                        name).stdout for program in (bg_img, 'qemu-img'))
    ours, theirs = json.loads(ours), json.loads(theirs)
    if command == 'info':
        ours, theirs = [ours], [theirs]
        keys = ('virtual-size', 'format')
    else:
        keys = ('start', 'length', 'zero', 'data')
    ours, theirs = ([[e[k] for k in keys] for e in both]
                    for both in (ours, theirs))
    check(f'{command} of {name}: {ours} {theirs}', ours == theirs)


def by_name(bg_img, bg_io, disk, name, folder):
    """All commands take @name, an export of @disk that can be written."""
    copy = folder / 'copy'
    same_as_qemu_img(bg_img, name, 'info')
    same_as_qemu_img(bg_img, name, 'map')
    run(bg_img, 'compare', name, '-F', 'raw', disk)
    run(bg_img, 'dd', f'if={name}', f'of={copy}', 'bs=1M')
    check('dd copies it', copy.read_bytes() == disk.read_bytes())
    run(bg_img, 'bench', '-c', 100, '-q', name)
    run(bg_io, '-f', 'raw', '-c', 'write -P 9 1M 64k', name)
    run('qemu-io', '-f', 'raw', '-r', '-c', 'read -P 9 1M 64k', name)
    for options in (['-n'], []):
        run(bg_io, '-f', 'raw', '-c', 'write -P 9 4M 64k', name)
        run(bg_img, 'convert', *options, '-f', 'raw', '-O', 'raw', copy, name)
        check(f'convert {options} to {name} is complete',
              copy.read_bytes() == disk.read_bytes())
    run(bg_io, '-f', 'raw', '-c', 'write -P 9 4M 64k', name)
    run(bg_img, 'dd', '-f', 'raw', f'if={copy}', f'of={name}', 'bs=1M')
    check(f'dd to {name} is complete', copy.read_bytes() == disk.read_bytes())
    check('no qcow2 image is made in it', run(
        bg_img, 'convert', '-f', 'raw', '-O', 'qcow2', copy, name,
        ok=False).returncode == 1)
    copy.unlink()


def names(bg_img, bg_io, folder):
    """What people call exports, qemu-nbd's on a unix socket and on TCP."""
    disk, socket = prepare(folder), folder / 's'
    with Server(socket, 'qemu-nbd', '-t', '-e', 8, '-f', 'raw', '-x', 'a b',
                '-k', socket, disk):
        for name in (f'nbd:unix:{socket}:exportname=a b',
                     f'nbd+unix:///a%20b?socket={socket}'):
            by_name(bg_img, bg_io, disk, name, folder)
        run(bg_img, 'info', f'nbd:unix:{socket}', ok=False)
    with Server(socket, 'nbdkit', '-f', '-p', TCP_PORT, '-i', '127.0.0.1',
                'file', disk):
        for name in (f'nbd:127.0.0.1:{TCP_PORT}',
                     f'nbd:127.0.0.1:{TCP_PORT}:exportname=',
                     f'nbd://127.0.0.1:{TCP_PORT}',
                     f'nbd://127.0.0.1:{TCP_PORT}/',
                     f'nbd+tcp://127.0.0.1:{TCP_PORT}/'):
            run(bg_img, 'compare', name, '-F', 'raw', disk)
    for name in ('nbd:', 'nbd:unix:', 'nbd:host', 'nbd:host:', 'nbd::1',
                 'nbd:[::1:2', 'nbd://', 'nbd:///x', 'nbd://h:99999/',
                 'nbd://h/?x=y', 'nbd://u@h/', 'nbd+unix:///x',
                 'nbd+unix://h/x?socket=s', 'nbd+unix:///x?socket=',
                 'nbds://h/x', 'nbd+unix:///?socket=s&socket2=t'):
        done = run(bg_img, 'info', name, ok=False)
        check(f"'{name}' is refused", done.returncode == 1 and
              'names no NBD export' in done.stderr)


def in_images(bg_img, folder):
    """What an image says is the name of a file."""
    socket = folder / 's'
    with Server(socket, 'qemu-nbd', '-t', '-f', 'raw', '-k', socket,
                prepare(folder)):
        run('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-b',
            f'nbd:unix:{socket}', '-F', 'raw', folder / 'evil', '8M')
        for command in (['info', '--backing-chain'], ['map']):
            done = subprocess.run([bg_img, *command, 'evil'], text=True,
                                  capture_output=True, cwd=folder,
                                  timeout=TIMEOUT_S, check=False)
            check(f'{command[0]}: no export is opened for an image',
                  done.returncode == 1 and ('No such file' in done.stderr or
                                            'refused' in done.stderr))


def silent(bg_img, folder):
    """A server that accepts and says nothing takes no longer than an image may
    take to open, also below other images."""
    path = folder / 'silent'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', folder / 'top', '8M')
    trees = (f'driver=raw,file.driver=nbd,file.path={path}',
             f'driver=qcow2,file.driver=file,file.filename={folder}/top,'
             f'backing.driver=nbd,backing.path={path}')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        listener.settimeout(TIMEOUT_S)
        for tree in trees:
            command = [str(bg_img), 'map', '--image-opts', tree]
            with subprocess.Popen(command, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) as other:
                connection, _ = listener.accept()
                done = run(*command[:2], '--image-timeout=1', *command[2:],
                           ok=False)
                check('who may not wait goes before who waits',
                      other.poll() is None)
                check('a silent server is given up', done.returncode == 1 and
                      'than the limit allows' in done.stderr)
                other.kill()
                connection.close()
            # The connection of the one that gave up.
            listener.accept()[0].close()


class Ceasing:
    """A server of @disk that answers so many reads of each connection, and then
    nothing."""
    def __init__(self, path, disk, answers):
        self.data = disk.read_bytes()
        self.answers = answers
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return      # shut down
            thread = threading.Thread(target=self.serve, args=[connection])
            self.threads.append(thread)
            thread.start()

    @staticmethod
    def take(connection, layout):
        data = connection.recv(struct.calcsize(layout), socket.MSG_WAITALL)
        if len(data) < struct.calcsize(layout):
            raise EOFError
        return struct.unpack(layout, data)

    def greet(self, connection):
        connection.sendall(b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3))
        self.take(connection, '>I')
        option = 0
        while option != 7:          # NBD_OPT_GO
            _, option, length = self.take(connection, '>8sII')
            self.take(connection, f'{length}s') if length else None
            def reply(kind, data=b''):
                connection.sendall(struct.pack(
                    '>QIII', 0x3e889045565a9, option, kind, len(data)) + data)
            if option == 7:
                reply(3, struct.pack('>HQH', 0, len(self.data), 1))
                reply(1)            # NBD_REP_ACK
            else:
                reply(0x80000001)   # NBD_REP_ERR_UNSUP

    def serve(self, connection):
        with connection:
            try:
                self.greet(connection)
                for number in range(1 << 30):
                    _, _, kind, cookie, start, length = self.take(
                        connection, '>IHHQQI')
                    if kind == 0 and number < self.answers:
                        connection.sendall(
                            struct.pack('>IIQ', 0x67446698, 0, cookie) +
                            self.data[start:start + length])
            except (EOFError, OSError):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(TIMEOUT_S)


def silent_later(bg_img, folder):
    """A server that says nothing any more when an image in it is read: that
    ends, and is told of, by the name of the export."""
    image, path = folder / 'image', folder / 'ceasing'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', image, '8M')
    run('qemu-img', 'bitmap', '--add', image, 'b')
    for below in ('', '.image', '.file'):
        tree = (f'driver=qcow2,file{below}.driver=nbd,file{below}.path={path},'
                f'file{below}.reconnect-delay={3600 if below else 0}')
        tree += {'': '', '.image': ',file.driver=blkdebug',
                 '.file': ',file.driver=raw'}[below]
        answers, status = 0, 1
        while status == 1 and answers < 40:
            with Ceasing(path, image, answers):
                done = run(bg_img, 'check', '--image-timeout=1',
                           '--image-opts', tree, ok=False)
            path.unlink()
            status = done.returncode
            check(f'{tree}: given up after {answers} answers: {done.stderr}',
                  status == 0 or f"'nbd:unix:{path}:' takes longer to open or "
                  "to check than the limit allows" in done.stderr)
            answers += 1
        check(f'{tree}: {answers} answers', status == 0 and answers > 2)


def main():
    bg_img, bg_io = (Path(p).resolve() for p in sys.argv[1:3])
    tried = 0
    for name, test in (('qemu-nbd', with_qemu_nbd), ('nbdkit', with_nbdkit)):
        if not shutil.which(name):
            print('no', name)
            continue
        tried += 1
        with tempfile.TemporaryDirectory(prefix='blockgraph-') as folder:
            test(bg_img, bg_io, Path(folder))
    if shutil.which('qemu-img'):
        with tempfile.TemporaryDirectory(prefix='blockgraph-') as folder:
            silent(bg_img, Path(folder))
            silent_later(bg_img, Path(folder))
    if tried == 2:
        with tempfile.TemporaryDirectory(prefix='blockgraph-') as folder:
            names(bg_img, bg_io, Path(folder))
            in_images(bg_img, Path(folder))
    print(f'{tried} servers, {len(failures)} failed')
    return 77 if tried == 0 else 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
