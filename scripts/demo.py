#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk that is being written is backed up and read at a point in time.

    demo.py TOOLS FOLDER [IMAGE]

Called by demo.sh.  TOOLS has the tools that were built, FOLDER gets all images.
Without IMAGE a disk is made: an ext4 file system with real files, as a chain of
three qcow2 images, and a file in it, "database", that is written all the time.
IMAGE itself is not changed: what is written goes to a layer above it.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

MIB = 1 << 20
CLUSTER = 65536
DISK_MIB = 384
DATABASE_MIB = 128
BAR = 40


def say(text):
    print(f'\n== {text}', flush=True)


def shown(words):
    return ' '.join(f"'{w}'" if ' ' in w else w for w in words)


processes = []


@contextlib.contextmanager
def signals_wait():
    """Until what is being started is noted: nobody else would end it."""
    came = []
    old = {number: signal.signal(number, lambda n, _: came.append(n))
           for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        for number in came:
            os.kill(os.getpid(), number)


def start(words, **how):
    """In a group of its own: ^C is for us, who end it in order."""
    with signals_wait():
        processes.append(subprocess.Popen(words, start_new_session=True,
                                          **how))
    return processes[-1]


def stop_all():
    """Whatever is left of them, with what they have started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        process.wait()


def run(*command, show=True, ok=(0,)):
    words = [str(c) for c in command]
    if show:
        print('$', shown(words), flush=True)
    done = subprocess.run(words, text=True, capture_output=True, check=False)
    if done.returncode not in ok:
        sys.exit(f'{shown(words)}: status {done.returncode}\n'
                 f'{done.stdout}{done.stderr}')
    return done.stdout


class Daemon:
    """bg-daemon and its control socket."""

    def __init__(self, tools, folder, options):
        self.path = folder / 'control'
        self.events = []
        words = [str(tools / 'bg-daemon'), '--chardev',
                 f'socket,id=c,path={self.path},server=on', *options,
                 '--monitor', 'chardev=c']
        print('$', shown(words), '&', flush=True)
        self.process = start(words)
        self.socket = self.connect()
        self.stream = self.socket.makefile()
        json.loads(self.stream.readline())
        self.ask('qmp_capabilities', show=False)

    def connect(self):
        for _ in range(500):
            try:
                control = socket.socket(socket.AF_UNIX)
                control.connect(str(self.path))
                return control
            except OSError:
                if self.process.poll() is not None:
                    sys.exit('bg-daemon has ended')
                time.sleep(0.02)
        sys.exit('bg-daemon does not answer')

    def ask(self, name, /, show=True, **arguments):
        """What the command returns; '_' in names of arguments is '-'."""
        request = {'execute': name}
        if arguments:
            request['arguments'] = {k.replace('_', '-'): v
                                    for k, v in arguments.items()}
        if show:
            print('->', json.dumps(request), flush=True)
        self.socket.sendall(json.dumps(request).encode() + b'\n')
        while True:
            message = json.loads(self.stream.readline() or '{"error": "end"}')
            if 'event' in message:
                self.events.append(message)
                continue
            if 'error' in message:
                sys.exit(f'{name}: {message["error"]}')
            return message['return']

    def wait_for(self, job):
        """Show a bar until the job is over; it must have done well."""
        while True:
            jobs = {j['id']: j for j in self.ask('query-jobs', show=False)}
            state = jobs.get(job)
            if not state:
                sys.exit(f'job {job} has gone')
            done, total = state['current-progress'], state['total-progress']
            part = done / total if total else 1
            print(f'\r   {job:12} [{"#" * int(part * BAR):{BAR}}] '
                  f'{part:4.0%} {state["status"]:10}', end='', flush=True)
            if state['status'] == 'concluded':
                break
            time.sleep(0.1)
        print()
        if state.get('error'):
            sys.exit(f'job {job}: {state["error"]}')
        self.ask('job-dismiss', show=False, id=job)

    def cancel(self, job):
        self.ask('block-job-cancel', device=job, force=True)
        while any(j['id'] == job and j['status'] != 'concluded'
                  for j in self.ask('query-jobs', show=False)):
            time.sleep(0.02)
        self.ask('job-dismiss', show=False, id=job)

    def quit(self):
        self.ask('quit')
        if self.process.wait(30) != 0:
            sys.exit('bg-daemon has failed')


# --- the graph ---------------------------------------------------------------

def print_graph(daemon, folder, name):
    """As text, and as a picture if graphviz is installed."""
    graph = daemon.ask('x-debug-query-block-graph', show=False)
    names = {n['id']: n['name'] for n in graph['nodes']}
    print(f'   the graph, {name}:')
    for node in graph['nodes']:
        edges = [f'{e["name"]} -> {names[e["child"]]}' for e in graph['edges']
                 if e['parent'] == node['id']]
        print(f'     {node["type"][6:]:9} {node["name"]:22} '
              f'{", ".join(edges)}')
    dot = ['digraph {', 'node [shape=box, fontname=sans];']
    for node in graph['nodes']:
        dot.append(f'n{node["id"]} [label={json.dumps(node["name"])}];')
    for edge in graph['edges']:
        dot.append(f'n{edge["parent"]} -> n{edge["child"]} '
                   f'[label={json.dumps(edge["name"])}];')
    text = '\n'.join(dot + ['}'])
    picture = folder / f'graph-{name.replace(" ", "-")}'
    picture.with_suffix('.dot').write_text(text)
    if shutil.which('dot'):
        run('dot', '-Tsvg', '-o', picture.with_suffix('.svg'),
            picture.with_suffix('.dot'), show=False)
        print('     ' + str(picture.with_suffix('.svg')))


# --- the disk ----------------------------------------------------------------

def copy_files(source, to, limit):
    """Real files: what of @source there is room for."""
    for path in sorted(Path(source).rglob('*')):
        if path.is_file() and not path.is_symlink() and limit > 0:
            try:
                limit -= path.stat().st_size
                place = to / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
            except OSError:
                continue


def write_differences(tools, image, old, new, folder):
    """Bring the overlay @image from the content of @old to that of @new."""
    part = folder / 'part'
    commands = []
    with open(old, 'rb') as a, open(new, 'rb') as b:
        for at in range(0, DISK_MIB * MIB, CLUSTER):
            if a.read(CLUSTER) != (data := b.read(CLUSTER)):
                piece = part.with_suffix(f'.{at}')
                piece.write_bytes(data)
                commands += ['-c', f'write -q -s {piece} {at} {len(data)}']
    for i in range(0, len(commands), 200):
        run(tools / 'bg-io', '-f', 'qcow2', image, *commands[i:i + 200],
            show=False)
    for piece in folder.glob('part.*'):
        piece.unlink()


def make_disk(tools, folder):
    """The chain base <- monday <- disk; where the database lies in it."""
    files, raw = folder / 'files', folder / 'fs.raw'
    copy_files('/usr/include', files, 20 * MIB)
    (files / 'database').write_bytes(os.urandom(MIB) * DATABASE_MIB)
    run('mke2fs', '-q', '-t', 'ext4', '-E', 'root_owner=0:0', '-d', files, raw,
        f'{DISK_MIB}M')
    shutil.rmtree(files)
    run(tools / 'bg-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw,
        folder / 'base.qcow2')
    below = 'base'
    for layer, text in (('monday', 'Monday'), ('disk', 'Tuesday')):
        before, note = folder / 'before.raw', folder / f'{layer}.txt'
        shutil.copyfile(raw, before)
        note.write_text(f'written on {text}\n' * 10000)
        run('debugfs', '-w', '-R', f'write {note} {note.name}', raw, show=False)
        run(tools / 'bg-img', 'create', '-q', '-f', 'qcow2', '-b',
            f'{below}.qcow2', '-F', 'qcow2', folder / f'{layer}.qcow2')
        write_differences(tools, folder / f'{layer}.qcow2', before, raw,
                          folder)
        below = layer
    blocks = [int(n) for n in
              run('debugfs', '-R', 'blocks /database', raw,
                  show=False).split()]
    block = int(re.search(r'Block size: +(\d+)', run(
        'dumpe2fs', '-h', raw, show=False)).group(1))
    run('e2fsck', '-fn', raw)
    start = best = 0
    for i in range(1, len(blocks) + 1):
        if i == len(blocks) or blocks[i] != blocks[i - 1] + 1:
            if i - start > best:
                best, first = i - start, blocks[start]
            start = i
    for name in ('fs.raw', 'before.raw'):
        (folder / name).unlink()
    return first * block, best * block


def use_image(tools, folder, image):
    """A layer above the user's own; all of it may be written."""
    info = json.loads(run(tools / 'bg-img', 'info', '--output=json', image))
    run(tools / 'bg-img', 'create', '-q', '-f', 'qcow2', '-b',
        image.resolve(), '-F', info['format'], folder / 'disk.qcow2')
    size = info['virtual-size'] - info['virtual-size'] % 4096
    return 0, min(size, 256 * MIB)


# --- the demonstration -------------------------------------------------------

def nbd_uri(folder, export):
    path = urllib.parse.quote(str(folder / 'nbd'))
    return f'nbd+unix:///{export}?socket={path}'


def start_writer(folder, place):
    words = ['fio', '--name=writer', '--ioengine=nbd', '--rw=randwrite',
             '--uri=' + nbd_uri(folder, 'disk'), '--bs=4k',
             # A process of its own would leave our group.
             '--thread', '--iodepth=16', f'--offset={place[0]}',
             f'--size={place[1]}',
             '--time_based', '--runtime=3600', '--rate_iops=3000',
             '--randrepeat=0', '--output=/dev/null']
    print('$', shown(words), '&', flush=True)
    return start(words, stdout=subprocess.DEVNULL)


def new_target(tools, daemon, folder, name, size, backing=None):
    more = ['-b', f'{backing}.qcow2', '-F', 'qcow2'] if backing else []
    run(tools / 'bg-img', 'create', '-q', '-f', 'qcow2', *more,
        folder / f'{name}.qcow2', size)
    node = {'driver': 'qcow2', 'node-name': name,
            'file': {'driver': 'file',
                     'filename': str(folder / f'{name}.qcow2')}}
    daemon.ask('blockdev-add', show=False, **node)


def point_in_time(tools, daemon, folder, number, size):
    """The action that holds one for readers: a job that copies before guests
    write, and nothing else, above that of the backup."""
    new_target(tools, daemon, folder, f'old-data-{number}', size)
    return {'type': 'blockdev-backup', 'data': {
        'job-id': f'hold-{number}', 'device': f'backup-{number}',
        'sync': 'none', 'target': f'old-data-{number}', 'auto-dismiss': False,
        'filter-node-name': f'point-{number}'}}


def read_point(daemon, folder, number):
    """Export it, and copy it with somebody else's client."""
    daemon.ask('blockdev-add', driver='snapshot-access',
               node_name=f'snapshot-{number}', file=f'point-{number}')
    daemon.ask('block-export-add', type='nbd', id=f'fleece-{number}',
               node_name=f'snapshot-{number}', name=f'fleece-{number}')
    print_graph(daemon, folder, f'point {number}')
    run('nbdcopy', nbd_uri(folder, f'fleece-{number}'),
        folder / f'fleece-{number}.raw')


def end_point(daemon, number):
    daemon.ask('block-export-del', id=f'fleece-{number}', mode='hard')
    while daemon.ask('query-block-exports', show=False)[1:]:
        time.sleep(0.02)
    daemon.ask('blockdev-del', node_name=f'snapshot-{number}')
    daemon.cancel(f'hold-{number}')
    daemon.ask('blockdev-del', node_name=f'old-data-{number}')


def backup(name, **more):
    data = {'job-id': name, 'device': 'disk', 'target': name,
            'auto-dismiss': False, 'x-perf': {'max-workers': 4}}
    data.update({k.replace('_', '-'): v for k, v in more.items()})
    return {'type': 'blockdev-backup', 'data': data}


def demonstrate(tools, daemon, folder, size):
    say('One moment: a bitmap, a backup and an export of it begin together')
    new_target(tools, daemon, folder, 'full', size)
    daemon.ask('transaction', actions=[
        backup('full', sync='full', filter_node_name='backup-1'),
        point_in_time(tools, daemon, folder, 1, size),
        {'type': 'block-dirty-bitmap-add',
         'data': {'node': 'disk', 'name': 'changes'}}])
    read_point(daemon, folder, 1)
    end_point(daemon, 1)
    daemon.wait_for('full')
    daemon.ask('blockdev-del', node_name='full')

    say('Two seconds of writes later: what has changed since then')
    time.sleep(2)
    new_target(tools, daemon, folder, 'incremental', size, backing='full')
    daemon.ask('transaction', actions=[
        backup('incremental', sync='incremental', bitmap='changes',
               filter_node_name='backup-2'),
        point_in_time(tools, daemon, folder, 2, size)])
    read_point(daemon, folder, 2)
    end_point(daemon, 2)
    daemon.wait_for('incremental')
    daemon.ask('blockdev-del', node_name='incremental')

    say('The chain of the disk becomes one image, under the same writes')
    daemon.ask('block-stream', job_id='stream', device='disk',
               auto_dismiss=False)
    daemon.wait_for('stream')
    print_graph(daemon, folder, 'after the stream')


def prove(tools, folder, made):
    say('What was promised, checked by others')
    for number, name in ((1, 'full'), (2, 'incremental')):
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2',
            folder / f'fleece-{number}.raw', folder / f'{name}.qcow2')
        print(f'   {name}.qcow2 is point {number}, byte for byte')
        if made:
            run('e2fsck', '-fn', folder / f'fleece-{number}.raw')
            print(f'   the file system of point {number} is clean')
    differ = subprocess.run(
        ['cmp', '-s', folder / 'fleece-1.raw', folder / 'fleece-2.raw'],
        check=False).returncode
    if differ != 1:
        sys.exit('the writer has written nothing between the two points')
    for name in ('disk', 'full', 'incremental'):
        run('qemu-img', 'check', '-q', '-f', 'qcow2', folder / f'{name}.qcow2')
    print('   all images are clean')
    info = json.loads(run('qemu-img', 'info', '--output=json',
                          folder / 'disk.qcow2', show=False))
    if 'backing-filename' in info:
        sys.exit('the disk still has a backing file')
    print('   the disk needs no backing file any more')


def main():
    tools, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    image = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    start = time.monotonic()
    say('A disk' if not image else f'A layer above {image}')
    place = (use_image(tools, folder, image) if image
             else make_disk(tools, folder))
    size = json.loads(run(tools / 'bg-img', 'info', '--output=json', '-f',
                          'qcow2', folder / 'disk.qcow2',
                          show=False))['virtual-size']
    say('It is served over NBD, and written without end')
    daemon = Daemon(tools, folder, [
        '--blockdev', 'qcow2,node-name=disk,file.driver=file,'
        f'file.filename={folder}/disk.qcow2',
        '--nbd-server', f'addr.type=unix,addr.path={folder}/nbd',
        '--export', 'nbd,id=disk,node-name=disk,name=disk,writable=on'])
    writer = start_writer(folder, place)
    time.sleep(1)
    print_graph(daemon, folder, 'at first')
    demonstrate(tools, daemon, folder, size)
    if writer.poll() is not None:
        sys.exit('the writer has ended')
    writer.terminate()
    writer.wait()
    daemon.quit()
    prove(tools, folder, not image)
    say(f'Done in {time.monotonic() - start:.0f} seconds')


if __name__ == '__main__':
    for number in signal.SIGHUP, signal.SIGTERM:
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n== Interrupted')
    finally:
        stop_all()
