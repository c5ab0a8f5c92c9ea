#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-io and QEMU's programs keep each other out of an image.

    bg_io_locks.py BG_IO

One writer at a time, whoever it is; readers beside it.  qemu-nbd does not let
others resize, and a qcow2 image is its opener's alone.
Exit status 77: QEMU's programs are missing.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT_S = 60
RAW = ['-f', 'raw', 'disk.img']

failures = []


def expect(condition, text, done):
    if not condition:
        failures.append(text)
        print(f'FAILED: {text}: {done.args}: {done.returncode}\n'
              f'{done.stdout}{done.stderr}')


def run(folder, *argv):
    return subprocess.run(argv, cwd=folder, text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
                          check=False)


class Holder:
    """A tool that holds the image open until the block ends."""

    def __init__(self, folder, *argv, first='length'):
        self.first = first
        self.process = subprocess.Popen(argv, cwd=folder, text=True,
                                        stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def __enter__(self):
        # The answer to "length" says that all before it has been done.
        self.process.stdin.write(f'{self.first}\nlength\n')
        self.process.stdin.flush()
        while 'iB' not in self.process.stdout.readline():
            pass
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait(TIMEOUT_S)


class Server:
    """qemu-nbd, which forks when the image is open."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        # Its child would keep pipes of ours open, so it gets none.
        subprocess.run(['qemu-nbd', '--fork', '--pid-file=pid',
                        f'--socket={self.folder}/socket', *RAW],
                       cwd=self.folder, check=True, timeout=TIMEOUT_S,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        subprocess.run(['kill', (self.folder / 'pid').read_text().strip()],
                       check=True)


def test_resize_is_kept_out(bg_io, folder):
    with Server(folder):
        done = run(folder, bg_io, '-r', *RAW, '-c', 'read 0 512')
        expect(done.returncode == 0, 'qemu-nbd lets others read a raw image',
               done)
        done = run(folder, bg_io, *RAW, '-c', 'truncate 2M')
        expect(done.returncode == 1 and 'lock' in done.stderr,
               'a second writer is refused', done)
        expect((folder / 'disk.img').stat().st_size == 1 << 20,
               'and changes nothing', done)


def test_resizer_keeps_server_out(bg_io, folder):
    with Holder(folder, bg_io, *RAW, first='truncate 1M'):
        done = run(folder, 'qemu-nbd', '--fork', f'--socket={folder}/other',
                   *RAW)
        expect(done.returncode == 1 and 'lock' in done.stderr,
               'qemu-nbd does not serve what bg-io may resize', done)


def test_format_keeps_raw_out(bg_io, folder):
    qcow2 = ['-f', 'qcow2', 'disk.qcow2']
    raw = ['-f', 'raw', 'disk.qcow2']

    run(folder, 'qemu-img', 'create', *qcow2, '1M')
    with Holder(folder, 'qemu-io', *qcow2):
        done = run(folder, bg_io, *raw, '-c', 'length')
        expect(done.returncode == 1 and 'lock' in done.stderr,
               'bg-io does not write below a format', done)
        done = run(folder, bg_io, '-r', '-U', *raw, '-c', 'read 0 512')
        expect(done.returncode == 0, 'but reads there by force', done)
    with Holder(folder, bg_io, *raw):
        done = run(folder, 'qemu-io', *qcow2, '-c', 'length')
        expect(done.returncode == 1 and 'lock' in done.stderr,
               'a format is not opened above a writing bg-io', done)
    with Holder(folder, bg_io, '-r', *raw):
        done = run(folder, 'qemu-io', '-r', *qcow2, '-c', 'length')
        expect(done.returncode == 0, 'readers share', done)
    done = run(folder, 'qemu-io', *qcow2, '-c', 'write 0 512')
    expect(done.returncode == 0, 'the locks go with the program', done)


def test_one_writer(bg_io, folder):
    for first, second in ((bg_io, 'qemu-io'), ('qemu-io', bg_io),
                          (bg_io, bg_io)):
        with Holder(folder, first, *RAW):
            done = run(folder, second, *RAW, '-c', 'write -P 3 0 512')
            expect(done.returncode == 1 and 'lock' in done.stderr and
                   'disk.img' in done.stderr, 'a second writer is refused',
                   done)
            done = run(folder, second, '-r', *RAW, '-c', 'read -P 0 0 512')
            expect(done.returncode == 0, 'a reader is not', done)


def main():
    for program in ('qemu-io', 'qemu-img', 'qemu-nbd'):
        if not shutil.which(program):
            print(f'{program} is missing')
            return 77
    bg_io = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'disk.img').write_bytes(bytes(1 << 20))
        test_resize_is_kept_out(bg_io, folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'disk.img').write_bytes(bytes(1 << 20))
        test_resizer_keeps_server_out(bg_io, folder)
        test_format_keeps_raw_out(bg_io, folder)
        test_one_writer(bg_io, folder)
    print(f'{len(failures)} failures')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
