#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The NBD server and the clients that people use.

    nbd_clients.py BG_NBD BG_IMG BG_IO

nbdinfo, nbdcopy, nbdsh, nbdfuse, qemu-img, qemu-io, fio, and our own tools with
--object against bg-nbd;
the maps of an image are compared with those that qemu-nbd gives.  Exits with
77 where qemu-nbd or nbdinfo is missing; other clients are left out.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from qmp_client import wait_for_end, wait_for_file

BG_NBD, BG_IMG, BG_IO = (os.path.abspath(p) for p in sys.argv[1:4])
MIB = 1 << 20
failed = []


def check(good, what):
    if not good:
        failed.append(what)
        print(f'FAILED: {what}')


def run(*command, ok=True):
    done = subprocess.run(command, text=True, capture_output=True, timeout=120,
                          check=False)
    if ok is not None:
        check((done.returncode == 0) == ok,
              f'{" ".join(command)}: {done.returncode} {done.stderr}')
    return done.stdout


class Server:
    """A server on a unix socket; ends with the block."""

    def __init__(self, *arguments, program=BG_NBD, port=None):
        self.path = tempfile.mktemp(prefix='nbd-', dir='.')
        self.path = os.path.abspath(self.path)
        where = ['-p', str(port)] if port else ['-k', self.path]
        self.pid_file = self.path + '.pid'
        run(program, '-t', '-e', '0', '--fork', '--pid-file', self.pid_file,
            *where, *arguments)
        self.uri = f'nbd+unix:///?socket={self.path}'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with open(self.pid_file, encoding='ascii') as file:
            pid = int(file.read())
        os.kill(pid, signal.SIGTERM)
        check(wait_for_end(pid), 'the server did not end')


def test_internal_snapshots():
    """-l serves what was when the snapshot was made."""
    run('qemu-img', 'create', '-q', '-f', 'qcow2', 'snap.qcow2', '8M')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 1M', 'snap.qcow2')
    run('qemu-img', 'snapshot', '-c', 'old', 'snap.qcow2')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 0 1M', 'snap.qcow2')
    for name in ('old', '1', 'snapshot.id=1', 'snapshot.name=old'):
        with Server('-f', 'qcow2', '-l', name, 'snap.qcow2') as server:
            run('qemu-io', '-r', '-f', 'raw', '-c', 'read -P 1 0 1M',
                server.uri)
            run('qemu-io', '-f', 'raw', '-c', 'write 0 512', server.uri,
                ok=False)
    with Server('-f', 'qcow2', '-s', '--load-snapshot=old',
                'snap.qcow2') as server:
        run('qemu-io', '-f', 'raw', '-c', 'read -P 1 0 1M', '-c',
            'write -P 3 0 512', '-c', 'read -P 3 0 512', server.uri)
    run('qemu-io', '-r', '-f', 'qcow2', '-c', 'read -P 2 0 1M', 'snap.qcow2')
    run('qemu-img', 'snapshot', '-c', '1', 'snap.qcow2')    # its ID is 2
    with Server('-f', 'qcow2', '-l', 'snapshot.name=1', 'snap.qcow2') as server:
        run('qemu-io', '-r', '-f', 'raw', '-c', 'read -P 2 0 1M', server.uri)
    run(BG_NBD, '-f', 'qcow2', '-l', 'none', '-k', 'no.socket', 'snap.qcow2',
        ok=False)


def make_images():
    """A raw disk with holes, and a qcow2 chain above a copy of it."""
    run('qemu-img', 'create', '-q', '-f', 'raw', 'disk.raw', '64M')
    run('qemu-io', '-f', 'raw', '-c', 'write -P 1 1M 3M', '-c',
        'write -P 2 20M 64k', '-c', 'write -z 30M 1M', 'disk.raw')
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw',
        'base.qcow2')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
        'qcow2', 'top.qcow2')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 2M 128k', '-c',
        'write -z 21M 1M', 'top.qcow2')
    run('qemu-img', 'bitmap', '--add', 'top.qcow2', 'b0')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 4 40M 192k', 'top.qcow2')
    run('qemu-img', 'bitmap', '--disable', 'top.qcow2', 'b0')


def joined(extents):
    """Extents of the same kind as one."""
    out = []
    for e in extents:
        if out and out[-1]['type'] == e['type']:
            out[-1]['length'] += e['length']
        else:
            out.append({k: e[k] for k in ('offset', 'length', 'type')})
    return out


def test_maps():
    contexts = ['base:allocation', 'qemu:allocation-depth',
                'qemu:dirty-bitmap:b0']
    arguments = ['-r', '-f', 'qcow2', '-A', '-B', 'b0', 'top.qcow2']
    with Server(*arguments) as ours, \
            Server(*arguments, program='qemu-nbd') as theirs:
        for context in contexts:
            maps = [joined(json.loads(run('nbdinfo', '--json',
                                          f'--map={context}', s.uri)))
                    for s in (ours, theirs)]
            check(maps[0] == maps[1], f'{context}: {maps[0]} is not {maps[1]}')
        infos = [json.loads(run('nbdinfo', '--json', s.uri))['exports'][0]
                 for s in (ours, theirs)]
        for key in ('export-size', 'is_read_only', 'can_flush', 'can_fua',
                    'can_multi_conn', 'can_df', 'can_cache', 'contexts'):
            check(infos[0].get(key) == infos[1].get(key),
                  f'{key}: {infos[0].get(key)}, {infos[1].get(key)}')


def test_copies():
    with Server('-f', 'qcow2', 'top.qcow2') as s:
        run('nbdcopy', s.uri, 'copy.raw')
        run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', '-U',
            'top.qcow2', 'copy.raw')
        run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', s.uri,
            'copy.qcow2')
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', s.uri,
            'copy.qcow2')
        with open('noise.raw', 'wb') as file:
            file.write(os.urandom(MIB) * 64)
        run('nbdcopy', '--flush', 'noise.raw', s.uri)
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', 'noise.raw',
            s.uri)
    run('qemu-img', 'check', '-q', 'top.qcow2')
    run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', 'top.qcow2',
        'noise.raw')


def test_qemu_io():
    with Server('-f', 'raw', 'disk.raw') as s:
        run('qemu-io', '-f', 'raw', '-c', 'write -P 7 5k 3k', '-c',
            'read -P 7 5k 3k', '-c', 'write -zu 1M 64k', '-c',
            'read -P 0 1M 64k', '-c', 'discard 20M 64k', '-c',
            'aio_write -P 9 33M 1M', '-c', 'aio_flush', '-c', 'flush', '-c',
            'read -P 9 33M 1M', s.uri)
    # A disk that is raw by guess only could become another by what is written.
    with Server('disk.raw') as s:
        info = json.loads(run('nbdinfo', '--json', s.uri))['exports'][0]
        check(info['is_read_only'], 'a guessed raw disk can be written')
        run('qemu-io', '-f', 'raw', '-c', 'write 0 512', s.uri, ok=False)
    with Server('-s', 'disk.raw') as s:
        run('qemu-io', '-f', 'raw', '-c', 'write 0 512', s.uri)
    with Server('top.qcow2') as s:
        run('qemu-io', '-f', 'raw', '-c', 'write 0 512', s.uri)
    # Some promise of -r holds on the wire as well.
    with Server('-r', '-f', 'raw', 'disk.raw') as s:
        run('qemu-io', '-f', 'raw', '-c', 'write 0 512', s.uri, ok=False)


NBDSH = '''
h.set_handshake_flags(3)
h.connect_uri(%r)
size = h.get_size()
h.pwrite(b"x" * 1000, 12345)
assert h.pread(1000, 12345) == b"x" * 1000
h.zero(500, 12345)
assert h.pread(1000, 12345) == b"\\0" * 500 + b"x" * 500
h.trim(65536, 1 << 20)
h.cache(65536, 0)
h.flush()
try:
    h.set_strict_mode(0)
    h.pread(512, size)
    raise SystemExit("a read beyond the end went well")
except nbd.Error:
    pass
assert h.pread(512, 0) is not None
h.shutdown()
'''


def test_nbdsh():
    # It takes the python3 that is found first, which may be a user's own.
    os.environ['PATH'] = '/usr/bin:' + os.environ['PATH']
    if subprocess.run(['nbdsh', '-c', 'pass'], check=False,
                      stderr=subprocess.DEVNULL).returncode != 0:
        return
    with Server('-f', 'raw', 'disk.raw') as s:
        run('nbdsh', '-c', NBDSH % s.uri)


def test_fio():
    if not shutil.which('fio'):
        return
    with Server('-f', 'raw', 'disk.raw') as s:
        run('fio', '--name=v', '--ioengine=nbd', '--rw=randrw', '--bs=4k',
            '--iodepth=64', '--size=32M', '--verify=crc32c',
            '--uri=' + s.uri)


def test_nbdkit():
    """A server in front of ours, which is a client."""
    if not shutil.which('nbdkit'):
        return
    with Server('-f', 'raw', 'disk.raw') as s:
        run('nbdkit', '-U', '-', 'nbd', 'uri=' + s.uri, '--run',
            'qemu-io -f raw -c "write -P 5 3M 64k" -c "write -z 4M 64k" '
            '-c "discard 5M 64k" -c flush "$uri" && '
            'nbdcopy "$uri" through.raw')
    run('qemu-io', '-r', '-f', 'raw', '-c', 'read -P 5 3M 64k', '-c',
        'read -P 0 4M 64k', 'disk.raw')
    run('cmp', 'through.raw', 'disk.raw')


def test_nbdfuse():
    if not shutil.which('nbdfuse') or not os.access('/dev/fuse', os.W_OK):
        return
    os.mkdir('mnt')
    with Server('-r', '-f', 'raw', 'disk.raw') as s:
        with subprocess.Popen(['nbdfuse', '-r', 'mnt', s.uri],
                              stderr=subprocess.DEVNULL) as fuse:
            try:
                wait_for_file(fuse, Path('mnt/nbd'))
            except AssertionError:  # it may not mount anything here
                fuse.kill()
                return
            run('cmp', 'mnt/nbd', 'disk.raw')
            run('umount', 'mnt')


CERT = {'ca': 'cn = "CA"\nca\ncert_signing_key\n',
        'server': 'cn = "localhost"\ndns_name = "localhost"\n'
                  'tls_www_server\nsigning_key\n',
        'client': 'cn = "client"\ntls_www_client\nsigning_key\n'}


def make_certificates(where):
    os.mkdir(where)
    for name, text in CERT.items():
        base = f'{where}/{name}'
        with open(base + '.t', 'w', encoding='ascii') as file:
            file.write(text)
        run('certtool', '--generate-privkey', '--key-type=ecdsa', '--outfile',
            base + '-key.pem')
        how = ['--generate-self-signed'] if name == 'ca' else [
            '--generate-certificate', '--load-ca-certificate',
            f'{where}/ca-cert.pem', '--load-ca-privkey',
            f'{where}/ca-key.pem']
        run('certtool', *how, '--load-privkey', base + '-key.pem',
            '--template', base + '.t', '--outfile', base + '-cert.pem')


def test_tls():
    if not shutil.which('certtool'):
        return
    make_certificates('good')
    make_certificates('bad')
    creds = 'tls-creds-x509,id=t,endpoint=server,dir=' + os.path.abspath('good')
    port = 20000 + os.getpid() % 12000
    with Server('-r', '-f', 'raw', '--object', creds, '--tls-creds', 't',
                '-b', '127.0.0.1', 'disk.raw', port=port):
        uri = f'nbds://localhost:{port}/?tls-certificates='
        run('nbdcopy', uri + os.path.abspath('good'), 'tls.raw')
        run('cmp', 'tls.raw', 'disk.raw')
        run('nbdinfo', '--size', uri + os.path.abspath('bad'), ok=False)
        run('nbdinfo', '--size', f'nbd://localhost:{port}', ok=False)
        run('qemu-img', 'info', '--object',
            'tls-creds-x509,id=c,endpoint=client,dir=' +
            os.path.abspath('good'), '--image-opts',
            'driver=nbd,tls-creds=c,tls-hostname=localhost,'
            f'server.type=inet,server.host=127.0.0.1,server.port={port}')
        for name, good in (('localhost', True), ('other.example', False)):
            run(BG_NBD, '-L', '-b', '127.0.0.1', '-p', str(port), '--object',
                'tls-creds-x509,id=c,endpoint=client,dir=' +
                os.path.abspath('good'), '--tls-creds', 'c',
                '--tls-hostname', name, ok=good)
    os.mkdir('psk')
    with open('psk/keys.psk', 'w', encoding='ascii') as file:
        file.write('alice:00112233445566778899aabbccddeeff\n')
    creds = 'tls-creds-psk,id=t,endpoint=server,dir=' + os.path.abspath('psk')
    with Server('-r', '-f', 'raw', '--object', creds, '--tls-creds', 't',
                'disk.raw') as s:
        run('nbdinfo', '--size', f'nbds+unix://alice@/?socket={s.path}'
            f'&tls-psk-file={os.path.abspath("psk")}/keys.psk')


def test_objects_of_our_tools():
    """--object makes what nbds: URIs and tls-creds= refer to."""
    if not shutil.which('certtool'):
        return
    for name in ('good', 'bad'):
        if not os.path.exists(name):
            make_certificates(name)

    def creds(name, endpoint='client', kind='x509', more=''):
        return ('--object', f'tls-creds-{kind},id=c,endpoint={endpoint},'
                f'dir={os.path.abspath(name)}{more}')
    port = 20001 + os.getpid() % 12000
    uri = f'nbds://localhost:{port}/?tls-creds=c'
    node = ('driver=raw,file.driver=nbd,file.tls-creds=c,file.tls-hostname='
            'localhost,file.server.type=inet,file.server.host=127.0.0.1,'
            f'file.server.port={port}')
    shutil.copy('disk.raw', 'tls-disk.raw')
    with Server('-f', 'raw', *creds('good', 'server'), '--tls-creds', 'c',
                '-b', '127.0.0.1', 'tls-disk.raw', port=port):
        run(BG_IMG, 'convert', *creds('good'), '-f', 'raw', '-O', 'raw', uri,
            'ours.raw')
        run('cmp', 'ours.raw', 'tls-disk.raw')
        run(BG_IMG, 'compare', *creds('good'), '--image-opts', node,
            'driver=raw,file.driver=file,file.filename=ours.raw')
        run(BG_IMG, 'info', *creds('good'), '--image-opts', node)
        out = run(BG_IO, *creds('good'), '-f', 'raw', '-c',
                  'write -P 77 1M 64k', '-c', 'read -P 77 1M 64k', uri)
        check('failed' not in out, out)
        run(BG_IMG, 'convert', *creds('good'), '-n', '-f', 'raw', '-O', 'raw',
            'ours.raw', uri)
        run(BG_IO, '-r', *creds('good'), '--image-opts', '-c',
            'read 1M 64k', node)
        run(BG_NBD, '-L', *creds('good'), '--tls-creds', 'c', '-b',
            'localhost', '-p', str(port))
        run(BG_IMG, 'info', *creds('bad'), uri, ok=False)
        run(BG_IMG, 'info', uri, ok=False)
        run(BG_IO, '-r', *creds('bad'), '-c', 'read 0 512', uri, ok=False)
    run('cmp', 'ours.raw', 'tls-disk.raw')
    os.makedirs('psk', exist_ok=True)
    with open('psk/keys.psk', 'w', encoding='ascii') as file:
        file.write('alice:00112233445566778899aabbccddeeff\n')
    with Server('-r', '-f', 'raw', *creds('psk', 'server', 'psk'),
                '--tls-creds', 'c', 'disk.raw') as s:
        uri = f'nbds+unix:///?socket={s.path}&tls-creds=c'
        run(BG_IMG, 'compare', *creds('psk', kind='psk',
                                      more=',username=alice'),
            uri, 'disk.raw')
        run(BG_IMG, 'compare', *creds('psk', kind='psk', more=',username=bob'),
            uri, 'disk.raw', ok=False)


def test_other_objects():
    """What else --object makes, and what it refuses."""
    group = ('--object', 'throttle-group,id=g,limits.bps-total=1000000000')
    node = ('driver=throttle,throttle-group=g,file.driver=raw,'
            'file.file.driver=file,file.file.filename=disk.raw')
    run(BG_IMG, 'convert', *group, '--object', 'secret,id=s,data=x',
        '--object', '{"qom-type":"iothread","id":"io"}', '--image-opts', '-O',
        'raw', node, 'throttled.raw')
    run('cmp', 'throttled.raw', 'disk.raw')
    own = ('--object', 'throttle-group,id=g,x-bps-total=1000000000')
    run(BG_IO, '-r', *own, '--image-opts', '-c', 'read 0 64k', node)
    run(BG_IO, '-r', *group, '--image-opts', '-c', 'read 0 64k', node)
    for program in ([BG_IMG, 'info'], [BG_IO, '-r', '-c', 'quit'], [BG_NBD]):
        for text, word in (('nonsense,id=x', "'nonsense'"),
                           ('secret', "'id' is missing"),
                           ('id=x', "'qom-type' is missing"),
                           ('secret,data=x,id=', "'id'"),
                           ('secret,data=x,id=5', "'5'"),
                           ('{', '--object'), ('', '--object'),
                           ('secret,id=x', "'x'"),
                           ('secret,id=x,data=top-secret,foo=1',
                            'a comma in a value is written twice'),
                           ('secret,id=x,data=a,top-secret=1', "'x'"),
                           ('secret,id=x,data=a,format=top-secret', "'x'"),
                           ('secret,id=x,data=a,top-secret',
                            'column 20'),
                           ('{"qom-type":"secret","id":"x","data":"top-secret}',
                            'not well formed'),
                           ('{"qom-type":"secret","id":"x","data":top-secret}',
                            'not well formed'),
                           ('{"qom-type":"secret","id":"x","data":["top-secret"]}',
                            "'data' expects a string"),
                           ('secret,id=x,data.a=top-secret',
                            "'data' expects a string"),
                           ('tls-creds-x509,id=x,dir=none', 'none')):
            done = subprocess.run([*program, '--object', text, 'disk.raw'],
                                  text=True, check=False, timeout=30,
                                  capture_output=True)
            check('top-secret' not in done.stderr,
                  f'a secret is told: {done.stderr}')
            name = os.path.basename(program[0])
            check(done.returncode == 1 and word in done.stderr and
                  done.stderr.startswith(f'{name}: '),
                  f'{program} {text}: {done.returncode} {done.stderr}')
    done = subprocess.run([BG_IMG, 'info', *group, *group, 'disk.raw'],
                          text=True, check=False, capture_output=True)
    check(done.returncode == 1 and "duplicate property 'g'" in done.stderr,
          done.stderr)


def test_the_time_to_open_an_image_is_limited():
    """A server that is not there, however long one may try to open it."""
    image = ['--image-opts', 'driver=nbd,path=nowhere,open-timeout=86400']
    for seconds, text in (('1', "'nbd:unix:nowhere:' takes longer to open"),
                          ('x', "'x' is no number"), ('', "'' is no number"),
                          ('-1', "'-1' is no number")):
        limit = ['--image-timeout', seconds]
        for command in ([BG_IO, *limit, *image, '-c', 'length'],
                        [BG_NBD, *limit, '-k', 'never', *image],
                        [BG_IMG, 'info', *limit, *image]):
            done = subprocess.run(command, text=True, check=False,
                                  capture_output=True, timeout=60)
            check(done.returncode == 1 and text in done.stderr,
                  f'{command}: {done.returncode} {done.stderr}')


def test_list():
    with Server('-r', '-f', 'raw', '-x', 'a', '-D', 'text', 'disk.raw') as s:
        ours = run(BG_NBD, '-L', '-k', s.path)
        theirs = run('qemu-nbd', '-L', '-k', s.path)
        check(ours == theirs, f'--list: {ours} is not {theirs}')


def test_bg_nbd():
    """What is the tool's own: one client, failed handshakes, messages."""
    run(BG_NBD, '--version')
    run(BG_NBD, '--help')
    for wrong in (['-f', 'raw', 'none.raw'], ['-f', 'nonsense', 'disk.raw'],
                  [], ['-c', '/dev/nbd0', 'disk.raw'], ['-e', 'x', 'disk.raw'],
                  ['-B', 'none', '-k', 'sock', '-f', 'qcow2', 'top.qcow2'],
                  ['--tls-authz=x', '-f', 'raw', 'disk.raw'],
                  ['--selinux-label=x', '-f', 'raw', 'disk.raw'],
                  ['-T', 'x=y', '-f', 'raw', 'disk.raw'],
                  ['-b', '0.0.0.0', '-p', '0', '-f', 'raw', 'disk.raw'],
                  ['-n', '--cache=none', '-f', 'raw', 'disk.raw'],
                  ['--cache=none', '--cache=none', '-f', 'raw', 'disk.raw'],
                  ['--aio=threads', '--aio=threads', '-f', 'raw', 'disk.raw'],
                  ['--discard=on', '--discard=on', '-f', 'raw', 'disk.raw'],
                  ['-f', 'raw', '--image-opts',
                   'driver=raw,file.driver=file,file.filename=disk.raw'],
                  ['-L', '-r', '-k', 'sock'], ['-L', '-x', 'a', '-k', 'sock']):
        done = subprocess.run([BG_NBD, *wrong], text=True, check=False,
                              capture_output=True, timeout=30)
        check(done.returncode == 1 and done.stderr.startswith('bg-nbd'),
              f'{wrong}: {done.returncode} {done.stderr}')
    with subprocess.Popen([BG_NBD, '-r', '-f', 'raw', '-k', 'one',
                           '--pid-file', 'one.pid', 'disk.raw']) as one:
        wait_for_file(one, Path('one.pid'))     # then it listens
        uri = 'nbd+unix:///?socket=' + os.path.abspath('one')
        # R38: such a client is none.
        run('nbdinfo', '--size', uri.replace(':///', ':///no-such-name'),
            ok=False)
        check(one.poll() is None, 'a failed handshake ended a one-shot server')
        run('nbdcopy', uri, 'null:')
        check(one.wait(20) == 0, 'a one-shot server ends well')
    check(not os.path.exists('one'), 'the socket is left behind')
    with Server('-s', '-r', '-f', 'raw', 'disk.raw') as s:
        run('qemu-io', '-f', 'raw', '-c', 'write 0 1M', s.uri, ok=False)
    with Server('-s', '-f', 'raw', 'disk.raw') as s:
        before = open('disk.raw', 'rb').read()
        run('qemu-io', '-f', 'raw', '-c', 'write -P 99 0 1M', '-c',
            'read -P 99 0 1M', s.uri)
        check(open('disk.raw', 'rb').read() == before,
              '-s has written to the image')


def test_what_becomes_of_zeroes_and_discards():
    """What the options say is done to the file, seen by the room it takes."""
    run('qemu-img', 'create', '-q', '-f', 'raw', 'full.raw', '4M')
    trim, zero = 'discard 0 1M', 'write -P 0 0 1M'
    for command, given_back, options in (
            (trim, True, []), (trim, True, ['--discard=unmap']),
            (trim, False, ['--discard=ignore']),
            (zero, False, []), (zero, False, ['--detect-zeroes=off']),
            (zero, True, ['--detect-zeroes=unmap'])):
        run('qemu-io', '-f', 'raw', '-c', 'write -P 7 0 4M', 'full.raw')
        before = os.stat('full.raw').st_blocks
        with Server('-f', 'raw', *options, 'full.raw') as s:
            run('qemu-io', '-f', 'raw', '-c', command, '-c', 'flush', s.uri)
        check((os.stat('full.raw').st_blocks < before) == given_back,
              f'{command} with {options}')


def test_who_is_let_in():
    """Another user only with --any-uid, if the socket lets him; all addresses
    with --plain-text."""
    os.chmod('.', 0o711)
    for options in ([], ['--any-uid']) if os.geteuid() == 0 else ():
        with Server('-r', '-f', 'raw', *options, 'disk.raw') as s:
            check(os.stat(s.path).st_mode & 0o777 == 0o600, 'the mode')
            os.chmod(s.path, 0o666)
            done = subprocess.run(['nbdinfo', '--size', s.uri], user=65534,
                                  group=65534, extra_groups=[], check=False,
                                  capture_output=True, timeout=60)
            check((done.returncode == 0) == bool(options),
                  f'another user, {options}: {done}')
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
    with Server('-r', '-v', '-f', 'raw', '-b', '0.0.0.0', '--plain-text',
                'disk.raw', port=port):
        run('nbdinfo', '--size', f'nbd://127.0.0.1:{port}')


def test_the_status_tells_of_a_bitmap_that_was_not_stored():
    """All writes to the file from one on fail, whichever it is."""
    good = 0
    for n in range(1, 60):
        for command in (['create', '-q', '-f', 'qcow2', 'marked', '1M'],
                        ['bitmap', '--add', 'marked', 'b']):
            run(BG_IMG, *command)
        states = [{'event': 'write_aio', 'state': i, 'new_state': i + 1}
                  for i in range(1, n)]
        node = {'driver': 'qcow2', 'file': {
            'driver': 'blkdebug', 'set-state': states,
            'inject-error': [{'event': 'write_aio', 'state': n, 'errno': 5}],
            'image': {'driver': 'file', 'filename': 'marked'}}}
        with subprocess.Popen([BG_NBD, '-t', '-k', 'm', 'json:' +
                               json.dumps(node)],
                              stderr=subprocess.PIPE, text=True) as server:
            wait_for_file(server, Path('m'))
            done = subprocess.run([BG_IO, '-f', 'raw', '-c', 'write 0 64k',
                                   '-c', 'flush', 'nbd+unix:///?socket=m'],
                                  capture_output=True, timeout=60, check=False)
            server.terminate()
            told = server.communicate(timeout=60)[1]
        bitmaps = json.loads(run('qemu-img', 'info', '--output=json',
                                 'marked'))['format-specific']['data']['bitmaps']
        in_use = 'in-use' in bitmaps[0]['flags']
        lost = in_use or 'could not' in told
        check(server.returncode == (1 if lost else 0),
              f'{n}: {server.returncode}, {bitmaps}, {told}')
        good += not lost and done.returncode == 0
        if good == 3:
            break
    check(good == 3, 'the disk was never well')


def main():
    for program in ('qemu-nbd', 'nbdinfo', 'nbdcopy'):
        if not shutil.which(program):
            print(f'{program} is missing')
            return 77
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        make_images()
        for name, test in list(globals().items()):
            if name.startswith('test_'):
                print(f'- {name[5:]}', flush=True)
                test()
        os.chdir('/')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
