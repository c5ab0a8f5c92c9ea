#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-img and what an image says of others, or of itself: names, its format.

    bg_img_names.py BG_IMG
"""
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

BG_IMG = Path(sys.argv[1]).resolve()
failures = []


def check(good, *what):
    if not good:
        failures.append(what)
        print('FAILED:', *what)


def img(folder, *words):
    return subprocess.run([str(BG_IMG), *words], cwd=folder, text=True,
                          capture_output=True, timeout=60, check=False)


def must(folder, *words):
    done = img(folder, *words)
    check(done.returncode == 0, words, done.stderr)
    return done.stdout


def chain(folder):
    """base <- mid <- top"""
    must(folder, 'create', '-q', '-f', 'qcow2', 'base', '1M')
    for top, below in ('mid', 'base'), ('top', 'mid'):
        must(folder, 'create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2',
             top)


def test_no_chain_of_an_image_that_is_not_trusted(folder):
    chain(folder)
    tree = 'driver=qcow2,file.driver=file,file.filename=top'
    check(must(folder, 'info', '--backing-chain', '--image-opts',
               tree).count('image: ') == 3)
    for how in ([], ['--output=json']):
        done = img(folder, 'info', '--backing-chain', *how, '--image-opts',
                   tree + ',untrusted=on')
        check(done.returncode == 1, done)
        check("'mid', which it names as its backing file, is not opened"
              in done.stderr, done.stderr)
        check('base' not in done.stdout, done.stdout)
    # The image itself may be looked at.
    must(folder, 'info', '--image-opts', tree + ',untrusted=on')


def test_no_image_becomes_its_own_backing_file(folder):
    chain(folder)
    os.symlink('base', Path(folder) / 'symbolic')
    os.link(Path(folder) / 'base', Path(folder) / 'hard')
    (Path(folder) / 'sub').mkdir()
    for name in 'base', './base', 'sub/../base', 'symbolic', 'hard':
        for image in 'base', 'symbolic', 'hard':
            done = img(folder, 'rebase', '-u', '-b', name, '-F', 'qcow2', image)
            check(done.returncode == 1, name, image, done)
            check('would back itself' in done.stderr, done.stderr)
    check('backing' not in must(folder, 'info', 'base'))
    # What is not there yet may be named.
    must(folder, 'rebase', '-u', '-b', 'later', '-F', 'qcow2', 'top')
    check('later' in must(folder, 'info', 'top'))


def test_no_image_is_converted_onto_itself(folder):
    """Nor onto what it shows, by whatever name."""
    base = Path(folder) / 'base'
    for target in 'base', './base', 'link', 'hard':
        for how in (['-f', 'raw', '-O', 'raw', 'base'],
                    ['-f', 'raw', '-O', 'qcow2', 'base'],
                    ['-f', 'raw', '-O', 'raw', '-n', 'base'],
                    ['-f', 'qcow2', '-O', 'raw', 'top'],
                    ['-f', 'qcow2', '-O', 'qcow2', 'top']):
            for old in Path(folder).iterdir():
                old.unlink()
            base.write_bytes(b'x' * 65536)
            must(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F',
                 'raw', 'top')
            os.symlink('base', Path(folder) / 'link')
            os.link(base, Path(folder) / 'hard')
            done = img(folder, 'convert', *how, target)
            check(done.returncode == 1 and 'lock' in done.stderr, how, target,
                  done)
            check(base.read_bytes() == b'x' * 65536, how, target)
            done = img(folder, 'dd', *how[:2], '-O', how[3], f'if={how[-1]}',
                       f'of={target}')
            check(done.returncode == 1 and
                  ('lock' in done.stderr or 'same file' in done.stderr), how,
                  target, done)
            check(base.read_bytes() == b'x' * 65536, how, target)
    # To another file, that is done.
    must(folder, 'dd', '-f', 'qcow2', 'if=top', 'of=dd')
    must(folder, 'convert', '-f', 'qcow2', '-O', 'raw', 'top', 'other')


def test_no_image_is_made_over_its_own_backing_file(folder):
    chain(folder)
    os.symlink('base', Path(folder) / 'symbolic')
    os.link(Path(folder) / 'base', Path(folder) / 'hard')
    before = (Path(folder) / 'base').read_bytes()
    for name in 'base', './base', 'symbolic', 'hard', f'{folder}/base':
        for how in (['create', '-b', name, '-F', 'qcow2', '-f', 'qcow2'],
                    ['create', '-u', '-b', name, '-F', 'qcow2', '-f', 'qcow2'],
                    ['create', '-f', 'qcow2', '-o',
                     f'backing_file={name},backing_fmt=qcow2'],
                    ['convert', '-O', 'qcow2', '-B', name, '-F', 'qcow2',
                     'top']):
            size = ['1M'] if '-u' in how else []
            done = img(folder, *how, 'base', *size)
            check(done.returncode == 1, how, done)
            check('would back itself' in done.stderr, how, done.stderr)
            check((Path(folder) / 'base').read_bytes() == before, how)


def opened_files(folder, *words):
    """The files of @folder that bg-img opens; None without strace."""
    if not shutil.which('strace'):
        return None
    done = subprocess.run(['strace', '-f', '-qq', '-o', '/dev/stdout', '-e',
                           'trace=open,openat,openat2,creat,truncate,io_uring_setup',
                           str(BG_IMG), *words], cwd=folder, text=True,
                          capture_output=True, timeout=60, check=False)
    names = re.findall(r'(?:open\w*|creat|truncate)\((?:[^"]*, )?"([^"]*)"',
                       done.stdout)
    here = {p.name for p in Path(folder).iterdir()}
    return {Path(n).name for n in names} & here


def test_to_look_at_an_image_opens_one_file(folder):
    chain(folder)
    must(folder, 'create', '-q', '-f', 'qcow2', '-o',
         'data_file=data,data_file_raw=on', 'image', '1M')
    looks = [['info', '-f', 'qcow2'], ['info', '--output=json'], ['check'],
             ['snapshot', '-l']]
    for image in 'image', 'top':
        before = (Path(folder) / image).read_bytes()
        for look in looks:
            files = opened_files(folder, *look, image)
            check(files in (None, {image}), look, image, files)
            check((Path(folder) / image).read_bytes() == before, look)
    for prepare in os.unlink, os.mkfifo, os.unlink:
        prepare(Path(folder) / 'data')
        for look in looks:
            must(folder, *look, 'image')
        done = img(folder, 'map', 'image')
        check(done.returncode == 1 and 'data' in done.stderr, done)
    text = must(folder, 'info', 'image')
    check('    data file: data\n    data file raw: true\n' in text or
          '    data file raw: true\n    data file: data\n' in text, text)
    check(json.loads(must(folder, 'info', '--output=json', 'image'))
          ['format-specific']['data']['data-file'] == 'data')


def test_a_disk_that_is_raw_by_guess_is_not_written(folder):
    disk = Path(folder) / 'disk'
    disk.write_bytes(b'x' * 65536)
    writes = [(['bench', '-q', '-w', '-c', '1'], 1), (['check', '-r', 'all'], 63),
              (['snapshot', '-c', 'x'], 1), (['bitmap', '--add'], 1),
              (['rebase', '-u', '-b', ''], 1), (['commit'], 1),
              (['amend', '-o', 'compat=1.1'], 1)]
    for words, status in writes:
        more = ['b'] if words[0] == 'bitmap' else []
        done = img(folder, *words, 'disk', *more)
        check(done.returncode == status, words, done)
        check('is opened read-only; with -f raw it can be written'
              in done.stderr, words, done.stderr)
        check(disk.read_bytes() == b'x' * 65536, words)
    must(folder, 'bench', '-q', '-w', '-c', '1', '-f', 'raw', 'disk')
    check(disk.read_bytes()[:4096] == bytes(4096))
    # Its length may change, as with qemu-img: scripts do that.
    done = img(folder, 'resize', 'disk', '+64k')
    check(done.returncode == 0 and 'taken as raw' in done.stderr, done)
    check(disk.stat().st_size == 131072)
    # Who does not write is not told how to.
    check('read-only' not in img(folder, 'info', 'disk').stderr)


def test_a_prefix_makes_a_path_of_any_name(folder):
    folder = Path(folder)
    (folder / 'sub').mkdir()
    must(folder, 'create', '-q', '-f', 'qcow2', 'sub/base', '1M')
    must(folder, 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2',
         'file:sub/top')
    check((folder / 'sub/top').exists() and not (folder / 'file:sub').exists())
    check('(actual path: sub/base)' in must(folder, 'info', 'file:sub/top'))
    check(must(folder, 'info', '--backing-chain', 'file:sub/top')
          .count('image: ') == 2)
    must(folder, 'convert', '-O', 'raw', 'file:sub/top', 'file:json:{}')
    check((folder / 'json:{}').stat().st_size == 1 << 20)
    must(folder, 'compare', '-f', 'raw', '-F', 'qcow2', 'file:json:{}',
         'blkdebug::file:sub/top')
    # A guess looks through the prefixes as well.
    check('file format: qcow2' in must(folder, 'info', 'blkdebug::sub/top'))
    done = img(folder, 'info', 'blkdebug::' * 12000 + 'sub/top')
    check(done.returncode == 1 and 'Too many filters' in done.stderr, done)
    # To make an image over its own backing file is refused as without.
    done = img(folder, 'create', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2',
               'file:sub/base')
    check(done.returncode == 1 and 'would back itself' in done.stderr, done)
    # Other names with a colon are names.
    must(folder, 'create', '-q', '-f', 'raw', 'a:b', '64k')
    check((folder / 'a:b').exists() and must(folder, 'info', '-f', 'raw',
                                             'a:b'))


def test_only_files_are_made(folder):
    must(folder, 'create', '-q', '-f', 'raw', 'disk', '64k')
    for name in 'json:{"driver":"null-co"}', 'blkdebug::disk', 'null-co://':
        for how in (['create', '-f', 'raw', name, '64k'],
                    ['create', '-f', 'qcow2', name, '64k'],
                    ['convert', '-f', 'raw', '-O', 'raw', 'disk', name],
                    ['dd', '-f', 'raw', '-O', 'raw', 'if=disk', f'of={name}']):
            done = img(folder, *how)
            check(done.returncode == 1 and 'not the name of a file'
                  in done.stderr, how, done)
    check(os.listdir(folder) == ['disk'])


def test_what_cannot_be_made_leaves_the_file_that_is_there(folder):
    must(folder, 'create', '-q', '-f', 'raw', 'disk', '64k')
    there = Path(folder) / 'there'
    for wrong in (['-O', 'qcow3'], ['-O', 'null-co'], ['-c', '-O', 'raw'],
                  ['-O', 'raw', '-o', 'nonsense=1'],
                  ['-O', 'raw', '-o', 'preallocation=some'],
                  ['-O', 'qcow2', '-o', 'nonsense=1'],
                  ['-O', 'qcow2', '-o', 'cluster_size=3'],
                  ['-O', 'qcow2', '-o', 'cluster_size=96k'],
                  ['-O', 'qcow2', '-o', 'extended_l2=on,cluster_size=4k'],
                  ['-O', 'qcow2', '-o', 'preallocation=some']):
        ways = [['convert', '-f', 'raw', *wrong, 'disk', 'there']]
        if wrong[0] == '-O':
            ways.append(['create', '-f', *wrong[1:], 'there', '64k'])
        if '-o' not in wrong and '-c' not in wrong:
            ways.append(['dd', '-f', 'raw', *wrong, 'if=disk', 'of=there'])
        for how in ways:
            there.write_bytes(b'content')
            done = img(folder, *how)
            check(done.returncode == 1 and done.stderr.startswith('bg-img: '),
                  how, done)
            check('Measuring' not in done.stderr, how, done.stderr)
            check(there.read_bytes() == b'content', how, 'is gone')
            there.unlink()
            img(folder, *how)
            check(os.listdir(folder) == ['disk'], how, 'left a file')


def test_a_device_that_an_image_names(folder):
    """It is not opened, also not by way of a link; but what the user names is."""
    must(folder, 'create', '-q', '-f', 'raw', 'disk', '1M')
    done = subprocess.run(['losetup', '-f', '--show', 'disk'], cwd=folder,
                          text=True, capture_output=True, timeout=60,
                          check=False) if shutil.which('losetup') else None
    if not done or done.returncode != 0:
        print('no loop device')
        return
    device = done.stdout.strip()
    link = Path(folder) / 'link'
    node = Path(folder) / 'node'
    try:
        # The name of a file at first: a device is no backing file of a new one.
        must(folder, 'create', '-q', '-f', 'qcow2', '-b', 'disk', '-F', 'raw',
             'top')
        os.rename(Path(folder) / 'disk', Path(folder) / 'content')
        os.symlink(device, link)
        os.mknod(node, 0o600 | stat.S_IFBLK, os.stat(device).st_rdev)
        tree = 'driver=qcow2,file.driver=file,file.filename=top'
        for target in link, node:
            os.symlink(target, Path(folder) / 'disk')
            for how in (['info', '--backing-chain', 'top'], ['map', 'top'],
                        ['rebase', '-b', 'link', '-F', 'raw', 'top']):
                done = img(folder, *how)
                check(done.returncode == 1 and 'is a block device, which only '
                      'the user may name' in done.stderr, how, done)
            os.unlink(Path(folder) / 'disk')
        done = img(folder, 'create', '-q', '-f', 'qcow2', '-b', device, '-F',
                   'raw', 'new')
        check(done.returncode == 1 and 'block device' in done.stderr, done)
        for path in device, link, node:
            must(folder, 'map', '--image-opts',
                 f'{tree},backing.driver=file,backing.filename={path}')
            must(folder, 'compare', '-f', 'raw', '-F', 'raw', str(path),
                 'content')
    finally:
        subprocess.run(['losetup', '-d', device], timeout=60, check=True)


def test_messages_do_not_get_into_an_image(folder):
    """Also where standard streams are closed: a file must not be their heir."""
    disk = Path(folder) / 'disk'
    for closed in '2>&-', '<&- >&- 2>&-':
        disk.write_bytes(bytes(65536))
        done = subprocess.run(
            ['sh', '-c', f'exec "$0" "$@" {closed}', str(BG_IMG), 'resize',
             '-f', 'raw', 'disk', '512'], cwd=folder, timeout=60, check=False)
        check(done.returncode == 1, done)
        check(disk.read_bytes() == bytes(65536), closed)


def test_a_node_without_a_name_is_told_by_its_driver(folder):
    done = img(folder, 'info', '--image-opts', 'driver=raw,nonsense=1,'
               'file.driver=null-co')
    check("Node of driver 'raw': unknown option 'nonsense'" in done.stderr,
          done.stderr)


def test_what_cannot_be_printed_is_an_error(folder):
    must(folder, 'create', '-q', '-f', 'raw', 'disk', '64k')
    for words in (['info', '-f', 'raw', 'disk'], ['--help'],
                  ['map', '--output=json', '-f', 'raw', 'disk']):
        with open('/dev/full', 'w') as full:
            done = subprocess.run([str(BG_IMG), *words], cwd=folder,
                                  stdout=full, stderr=subprocess.PIPE,
                                  text=True, timeout=60, check=False)
        check(done.returncode == 1 and 'standard output' in done.stderr, done)


def main():
    for name, test in list(globals().items()):
        if name.startswith('test_'):
            with tempfile.TemporaryDirectory(prefix='bg-img-names-') as folder:
                test(folder)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
