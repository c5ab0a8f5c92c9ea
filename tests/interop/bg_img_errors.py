#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-img when the disk below an image fails.

    bg_img_errors.py BG_IMG BG_IO BG_NBD

Each case is a command that runs again and again: at first the first request of
one kind to one of its images fails with EIO, then the second, until none is
left that could.  Each failure is told with the name of the image and an exit
status of 1; it takes nothing from anybody who reads the images, and the same
command does its work when the disk is well again.

Faults come from the filter blkdebug: once, as from a bad sector, and for good,
as from a disk that went away.
"""
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TIMEOUT_S = 60
KIB = 1024
LENGTH = 256 * KIB
REQUESTS_MAX = 400
# A request may fail and be made good, as an unmap by a write of zeroes; so the
# last one is behind us only after some runs that went well.
GOOD_RUNS = 3

# What fails, and by which event requests are counted.
KINDS = (('read', 'read_aio'), ('write', 'write_aio'),
         ('flush', 'flush_to_disk'))

BG_IMG, BG_IO, BG_NBD = (Path(p).resolve() for p in sys.argv[1:4])
failures = []


def run(*command, cwd):
    return subprocess.run([str(c) for c in command], cwd=cwd, text=True,
                          capture_output=True, timeout=TIMEOUT_S, check=False)


def must(*command, cwd):
    done = run(*command, cwd=cwd)
    if done.returncode != 0:
        raise RuntimeError(f'{command}: {done.stdout}{done.stderr}')
    return done.stdout


# --- images -----------------------------------------------------------------

def write(folder, name, *spots):
    """Spots are "PATTERN OFFSET BYTES"."""
    must(BG_IO, '-f', 'qcow2', *(a for s in spots
                                 for a in ('-c', f'write -P {s}')),
         name, cwd=folder)


def prepare(folder):
    """base <- mid <- top, of which base is shorter; other stands alone."""
    def create(name, *how, size='256k'):
        must(BG_IMG, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k',
             *how, name, size, cwd=folder)
    folder.mkdir()
    create('base.img', size='192k')
    write(folder, 'base.img', '1 0 64k', '2 128k 32k')
    create('mid.img', '-b', 'base.img', '-F', 'qcow2')
    write(folder, 'mid.img', '3 32k 16k', '4 200k 8k')
    create('top.img', '-b', 'mid.img', '-F', 'qcow2')
    write(folder, 'top.img', '5 36k 8k', '6 100k 20k', '7 252k 4k', '0 128k 4k')
    create('other.img')
    write(folder, 'other.img', '1 0 32k', '9 180k 20k')
    for bitmap in ('one', 'two'):
        must(BG_IMG, 'bitmap', '--add', 'other.img', bitmap, cwd=folder)
    write(folder, 'other.img', '8 60k 16k')


def content(path):
    """What a guest sees, by the word of another program."""
    copy = path.parent / (path.name + '.content')
    must('qemu-img', 'convert', '-U', '-f', 'qcow2', '-O', 'raw', path, copy,
         cwd=path.parent)
    return copy.read_bytes().ljust(LENGTH, b'\0')


def bitmaps(path):
    info = json.loads(must('qemu-img', 'info', '-U', '--output=json', path,
                           cwd=path.parent))
    return [b['name'] for b in info['format-specific']['data']
            .get('bitmaps', []) if not b['flags'].count('in-use')]


# --- faults -----------------------------------------------------------------

class Fault:
    """The @number-th request of a kind fails; once, or from then on."""

    def __init__(self, kind, number, once):
        self.type, self.event = kind
        self.number = number
        self.once = once

    def __str__(self):
        return (f'{self.type} {self.number} fails '
                f'{"once" if self.once else "for good"}')

    def config(self, folder):
        steps = [f'[set-state]\nevent = "{self.event}"\nstate = "{state}"\n'
                 f'new_state = "{state + 1}"\n'
                 for state in range(1, self.number)]
        path = folder / 'fault.config'
        path.write_text('\n'.join(steps) + f'''
[inject-error]
event = "{self.event}"
iotype = "{self.type}"
state = "{self.number}"
errno = "5"
once = "{"on" if self.once else "off"}"
''', encoding='ascii')
        return path


class Images:
    """What the command of a case names; @fault is below one of them."""

    def __init__(self, folder, faulty, fault):
        self.folder = folder
        self.faulty = faulty
        self.fault = fault

    def file(self, name):
        file = {'driver': 'file', 'filename': name}
        if self.fault and name == self.faulty:
            return {'driver': 'blkdebug', 'image': file,
                    'config': str(self.fault.config(self.folder))}
        return file

    def tree(self, *chain):
        """The first image, above the others."""
        tree = {'driver': 'qcow2', 'file': self.file(chain[0])}
        if len(chain) > 1:
            tree['backing'] = self.tree(*chain[1:])
        return tree

    def json(self, *chain):
        return 'json:' + json.dumps(self.tree(*chain))

    def options(self, name):
        """The same as key=value text, for --image-opts."""
        file = self.file(name)
        text = f'driver=qcow2,file.driver={file["driver"]}'
        if 'image' in file:
            return (f'{text},file.config={file["config"]},'
                    f'file.image.driver=file,file.image.filename={name}')
        return f'{text},file.filename={name}'


# --- cases ------------------------------------------------------------------

class Case:
    """One command.  Subclasses say which, and what is to be true."""
    faulty = ()         # the images below which something fails
    sources = ()        # files that the command only reads
    shown = ()          # images that show the same, whatever happens
    checked = ()        # images that are never corrupt
    named = {}          # other names by which a fault of an image is told

    def __init__(self, name, faulty=None):
        self.name = name
        self.faulty = faulty or self.faulty

    def before(self, folder):
        pass

    def run(self, images):
        raise NotImplementedError

    def done(self, folder, was):
        """Whether the work is done; @was is what the images showed."""
        raise NotImplementedError


class Commit(Case):
    faulty = ('top.img', 'mid.img')
    sources = ('base.img',)
    shown = ('top.img',)
    checked = ('top.img', 'mid.img')
    options = ()
    base = 'mid.img'

    def run(self, images):
        return run(BG_IMG, 'commit', *self.options,
                   images.json('top.img', 'mid.img', 'base.img'), cwd=images.folder)

    def done(self, folder, was):
        return content(folder / self.base) == was['top.img']


class CommitDrop(Commit):
    options = ('-d',)


class CommitFar(Commit):
    """To the end of the chain, which gets longer."""
    faulty = ('top.img', 'mid.img', 'base.img')
    sources = ('mid.img',)
    checked = ('top.img', 'base.img')
    named = {'mid.img': ['top.img']}    # what reads it is above
    options = ('-b', 'base.img')
    base = 'base.img'


class Rebase(Case):
    faulty = ('top.img', 'mid.img', 'base.img')
    sources = ('mid.img', 'base.img', 'other.img')
    shown = ('top.img',)
    checked = ('top.img',)
    named = {'base.img': ['mid.img']}   # what reads it is above
    to = 'other.img'

    def run(self, images):
        return run(BG_IMG, 'rebase', '-b', self.to,
                   *(('-F', 'qcow2') if self.to else ()),
                   images.json('top.img', 'mid.img', 'base.img'), cwd=images.folder)

    def done(self, folder, was):
        info = json.loads(must('qemu-img', 'info', '--output=json',
                               folder / 'top.img', cwd=folder))
        return info.get('backing-filename', '') == self.to


class RebaseInChain(Rebase):
    to = 'base.img'
    sources = ('mid.img', 'base.img')


class RebaseToNothing(Rebase):
    to = ''


class RebaseUnsafe(Rebase):
    """The name alone; to one that shows the same, so that nothing changes."""
    faulty = ('top.img',)
    to = 'twin.img'
    sources = ('mid.img', 'base.img', 'twin.img')

    def before(self, folder):
        shutil.copy(folder / 'mid.img', folder / 'twin.img')

    def run(self, images):
        return run(BG_IMG, 'rebase', '-u', '-b', self.to, '-F', 'qcow2',
                   images.json('top.img', 'mid.img', 'base.img'), cwd=images.folder)


class Convert(Case):
    """The copy is made in an image that is there, as faults need a node."""
    faulty = ('source.img', 'target.img')
    sources = ('source.img',)
    checked = ('target.img',)
    options = ()
    create = ()

    def before(self, folder):
        shutil.copy(folder / 'other.img', folder / 'source.img')
        self.make_target(folder)

    def make_target(self, folder):
        must(BG_IMG, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k',
             'target.img', '256k', cwd=folder)

    def run(self, images):
        # What is in the target from before has to go.
        if images.fault is None:
            self.make_target(images.folder)
        return run(BG_IMG, 'convert', '-n', '--image-opts',
                   '--target-image-opts', *self.options,
                   images.options('source.img'), images.options('target.img'),
                   cwd=images.folder)

    def done(self, folder, was):
        return content(folder / 'target.img') == was['other.img']


class ConvertCompressed(Convert):
    options = ('-c',)


class ConvertParallel(Convert):
    options = ('-m', '8', '-W')


class ConvertBitmaps(Convert):
    options = ('--bitmaps',)

    def done(self, folder, was):
        return (super().done(folder, was) and
                bitmaps(folder / 'target.img') == ['one', 'two'])


class Dd(Case):
    faulty = ('source.img',)
    sources = ('source.img',)
    output = 'qcow2'

    def before(self, folder):
        shutil.copy(folder / 'other.img', folder / 'source.img')

    def run(self, images):
        return run(BG_IMG, 'dd', '-O', self.output, 'bs=4k',
                   'if=' + images.json('source.img'), 'of=target.img',
                   cwd=images.folder)

    def done(self, folder, was):
        return content(folder / 'target.img') == was['other.img']


class DdToExport(Dd):
    """What is written goes to a disk that fails behind a server."""
    faulty = ('target.img',)
    named = {'target.img': ['target.socket']}

    def before(self, folder):
        super().before(folder)
        must(BG_IMG, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k',
             'target.img', '256k', cwd=folder)

    def run(self, images):
        where = images.folder / 'target.socket'
        pid_file = images.folder / 'pid'
        # --fork returns when the socket is there.
        served = run(BG_NBD, '-t', '-e', '0', '--fork', '--pid-file',
                     pid_file, '-k', where, '--image-opts',
                     images.options('target.img'), cwd=images.folder)
        if served.returncode != 0:
            return served
        server = os.pidfd_open(int(pid_file.read_text('ascii')))
        done = run(BG_IMG, 'dd', 'bs=4k', 'if=source.img', '-f', 'qcow2', '-O',
                   'raw', f'of=nbd+unix:///?socket={where}',
                   cwd=images.folder)
        signal.pidfd_send_signal(server, signal.SIGTERM)
        wait_for_end(server)
        return done


class Change(Case):
    """What changes one image, and not what it shows."""
    faulty = ('other.img',)
    shown = ('other.img',)
    checked = ('other.img',)

    def __init__(self, name, words, right):
        super().__init__(name)
        self.words = words
        self.right = right

    def run(self, images):
        return run(BG_IMG, *(images.json('other.img') if w == '@' else w
                             for w in self.words), cwd=images.folder)

    def done(self, folder, was):
        return self.right(json.loads(must(
            'qemu-img', 'info', '--output=json', 'other.img', cwd=folder)))


class Resize(Change):
    """Longer by zeroes."""
    shown = ()

    def done(self, folder, was):
        return (super().done(folder, was) and
                content(folder / 'other.img') == was['other.img'] +
                bytes(LENGTH))


def wait_for_end(process):
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(TIMEOUT_S * 1000):
        raise RuntimeError('the server does not end')
    os.close(process)


CASES = [Commit('commit'), CommitDrop('commit -d'),
         CommitFar('commit -b'), Rebase('rebase'),
         RebaseInChain('rebase in the chain'),
         RebaseToNothing('rebase to nothing'), RebaseUnsafe('rebase -u'),
         Convert('convert'), ConvertCompressed('convert -c'),
         ConvertParallel('convert -m 8 -W'),
         ConvertBitmaps('convert --bitmaps'), Dd('dd'),
         DdToExport('dd to an export'),
         Change('snapshot -c', ['snapshot', '-c', 'new', '@'],
                lambda info: info['snapshots'][0]['name'] == 'new'),
         Change('amend', ['amend', '-o', 'lazy_refcounts=on', '@'],
                lambda info: info['format-specific']['data']
                ['lazy-refcounts']),
         Change('bitmap --disable', ['bitmap', '--disable', '@', 'one'],
                lambda info: any(b['name'] == 'one' and b['flags'] == [] for b
                                 in info['format-specific']['data']
                                 ['bitmaps'])),
         Resize('resize', ['resize', '-q', '@', '512k'],
                lambda info: info['virtual-size'] == 2 * LENGTH)]


# --- running them -----------------------------------------------------------

class Wrong(Exception):
    pass


def expect(right, what):
    if not right:
        raise Wrong(what)


def check_images(case, folder, before, was, done_well):
    for name in case.sources:
        expect((folder / name).read_bytes() == before[name],
               f'{name} has changed')
    for name in case.shown:
        expect(content(folder / name) == was[name],
               f'{name} shows something else')
    for name in case.checked:
        if not done_well and is_dirty(folder / name):
            continue    # who writes to it next counts clusters anew
        done = run('qemu-img', 'check', '-f', 'qcow2', name, cwd=folder)
        expect(done.returncode in (0, 3),       # 3: leaks only
               f'{name} is damaged: {done.stdout}{done.stderr}')


def is_dirty(path):
    """Whether the header says so; its incompatible features end there."""
    return path.read_bytes()[79] & 1


def check_message(done, names):
    errors = re.findall('^bg-(?:img|nbd): (?!warning: )(.*)', done.stderr,
                        re.MULTILINE)
    expect(done.returncode == 1, f'status {done.returncode}: {done.stderr}')
    expect(done.stderr.startswith('bg-') and errors,
           f'message: {done.stderr}')
    expect(any(name in e for name in names for e in errors),
           f'{names} is not named: {done.stderr}')


def only_warnings(text):
    return all(line.startswith('bg-img: warning: ')
               for line in text.splitlines())


def try_fault(case, faulty, fault, prepared, was):
    """Whether the command did not notice @fault."""
    with tempfile.TemporaryDirectory(prefix='blockgraph-') as place:
        folder = Path(place) / 'images'
        shutil.copytree(prepared, folder)
        case.before(folder)
        before = {n: (folder / n).read_bytes() for n in case.sources}
        done = case.run(Images(folder, faulty, fault))
        if done.returncode == 0:
            # Such as clusters that leak, or a bitmap that nobody asked for.
            expect(only_warnings(done.stderr), f'done, but: {done.stderr}')
        else:
            check_message(done, [faulty, *case.named.get(faulty, ())])
            check_images(case, folder, before, was, False)
            again = case.run(Images(folder, faulty, None))
            # A bitmap may have been lost with the disk.
            expect(again.returncode == 0 and only_warnings(again.stderr),
                   f'again: {again.stderr}\nafter: {done.stderr}')
        check_images(case, folder, before, was, True)
        expect(case.done(folder, was), 'the result is wrong')
        return done.returncode == 0 and not done.stderr


def sweep(case, faulty, kind, once, prepared, was):
    """Let each request fail in turn.  Returns how many did."""
    failed = good = 0
    try:
        expect(try_fault(case, faulty, None, prepared, was),
               'it fails without a fault, too')
    except Wrong as wrong:
        failures.append(case.name)
        print(f'FAIL {case.name}: {wrong}', flush=True)
        return 0
    for number in range(1, REQUESTS_MAX):
        fault = Fault(kind, number, once)
        try:
            well = try_fault(case, faulty, fault, prepared, was)
        except Wrong as wrong:
            failures.append(case.name)
            print(f'FAIL {case.name}: below {faulty} {fault}: {wrong}',
                  flush=True)
            return failed
        good = good + 1 if well else 0
        failed += not well
        if good == GOOD_RUNS:
            return failed
    failures.append(case.name)
    print(f'FAIL {case.name}: does not get past {REQUESTS_MAX} faults')
    return failed


def main():
    if not shutil.which('qemu-img'):
        print('no qemu-img')
        return 77
    only = sys.argv[4:]
    with tempfile.TemporaryDirectory(prefix='blockgraph-') as place:
        prepared = Path(place) / 'prepared'
        prepare(prepared)
        was = {n: content(prepared / n) for n in ('top.img', 'mid.img', 'other.img')}
        with ThreadPoolExecutor(2) as pool:
            sweeps = [(case, faulty, kind, once,
                       pool.submit(sweep, case, faulty, kind, once, prepared,
                                   was))
                      for case in CASES if not only or case.name in only
                      for faulty in case.faulty
                      for kind in KINDS for once in (True, False)]
            for case, faulty, kind, once, result in sweeps:
                print(f'{case.name}, {faulty}, {kind[0]}, '
                      f'{"once" if once else "for good"}: '
                      f'{result.result()} failures', flush=True)
    print(f'{len(sweeps)} sweeps, {len(failures)} failed')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
