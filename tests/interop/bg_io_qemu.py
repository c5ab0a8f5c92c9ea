#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-io and qemu-io do the same things and say the same words.

    bg_io_qemu.py BG_IO

Each case runs once in either program, on copies of the same file.  Compared
are output, errors, exit status, and the file afterwards; times and rates are
blotted out first, and the name of the program.  Exit status 77: no qemu-io.
"""
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT_S = 60
IMAGE_BYTES = 4 << 20
CONTENT_MAX = 1 << 30
FUZZ_ROUNDS = 300
FUZZ_SEED = 20070601

# A case: the options, the commands, and how strictly stderr is compared.
EXACT = 'exact'         # the same text
SPOKEN = 'spoken'       # both say something, in their own words, or nothing
RAW = ['-f', 'raw']

failures = []


def normalise(text):
    """The same text without what differs from run to run."""
    text = re.sub(r'; (\d+:)*\d+\.\d+( sec)? \([\d.]+ \w+/sec and '
                  r'[\d.]+ ops/sec\)', '; T (R)', text)
    text = re.sub(r'^(\d+,\d+),[\d:.]+,[\d.]+,[\d.]+$', r'\1,T,R', text,
                  flags=re.M)
    return re.sub(r'\b(bg|qemu)-io\b', 'TOOL', text)


class Run:
    """What one program did with a copy of the image."""

    def __init__(self, tool, folder, case, image):
        self.path = folder / 'disk.img'
        shutil.copyfile(image, self.path)
        options, commands, stdin = case
        argv = [tool] + [o.replace('@', 'disk.img') for o in options]
        for command in commands:
            argv += ['-c', command.replace('@', 'disk.img')]
        done = subprocess.run(argv, cwd=folder, input=stdin.encode(),
                              capture_output=True, timeout=TIMEOUT_S,
                              check=False)
        self.status = done.returncode
        self.out = normalise(done.stdout.decode(errors='replace'))
        self.err = normalise(done.stderr.decode(errors='replace'))

    def content(self):
        if not self.path.exists():
            return None
        size = self.path.stat().st_size
        if size > CONTENT_MAX:      # a tmpfs has files of up to 8 EiB
            return size
        return self.path.read_bytes()


class Pair:
    """Both programs, each in a folder of its own."""

    def __init__(self, bg_io, folder):
        self.tools = {'bg': bg_io, 'qemu': 'qemu-io'}
        self.image = folder / 'original.img'
        pattern = bytes(range(256)) * (IMAGE_BYTES // 512)
        self.image.write_bytes(pattern + bytes(IMAGE_BYTES - len(pattern)))
        self.folders = {name: folder / name for name in self.tools}
        for path in self.folders.values():
            path.mkdir()
            (path / 'pattern').write_bytes(b'0123456789\n')
            (path / 'empty').write_bytes(b'')
            (path / 'rules').write_text('[inject-error]\nevent = "read_aio"\n'
                                        'errno = "5"\nonce = "on"\n')

    def compare(self, name, case, errors=EXACT, content=True):
        bg, qemu = (Run(self.tools[t], self.folders[t], case, self.image)
                    for t in ('bg', 'qemu'))
        different = []
        if bg.status != qemu.status:
            different.append(f'status: {bg.status}, qemu-io {qemu.status}')
        if bg.out != qemu.out:
            different.append(f'--- bg-io\n{bg.out}--- qemu-io\n{qemu.out}')
        if errors == EXACT and bg.err != qemu.err or \
                bool(bg.err) != bool(qemu.err):
            different.append(f'--- bg-io stderr\n{bg.err}'
                             f'--- qemu-io stderr\n{qemu.err}')
        if content and bg.content() != qemu.content():
            different.append('the files differ')
        if different:
            failures.append(name)
            print(f'FAILED: {name}: {case}\n' + '\n'.join(different))


def on_raw(*commands):
    return RAW + ['@'], commands, ''


def script(text):
    return RAW + ['@'], (), text


# --- what is compared --------------------------------------------------------

DATA = {
    'a pattern written is a pattern read': on_raw(
        'write -P 0xab 0 64k', 'read -P 0xab 0 64k', 'read -P 0 64k 64k',
        'read -P 7 1M 512', 'write 1M 512', 'read -P 0xcd 1M 512'),
    'a part of a read can be verified': on_raw(
        'write -P 1 0 512', 'write -P 2 512 512',
        'read -P 2 -s 512 0 1k', 'read -P 2 -s 512 -l 512 0 1k',
        'read -P 1 -l 512 0 1k', 'read -P 1 -l 513 0 1k',
        'read -P 1 -s 100 -l 1000 0 1k', 'read -P 2 -s 1k 0 1k'),
    'data is shown sixteen bytes a line': on_raw(
        'read -v 0 256', 'read -v 250 23', 'readv -v 30 5 20', 'read -v 3 0',
        'read -qv 0 16', 'read -Cv 0 16', 'write -P 0x5f 0 20',
        'read -v 0 21'),
    'vectors are one request': on_raw(
        'writev -P 5 3 512 1k 7', 'readv -P 5 3 7 512 1k', 'readv 0 1 2 3',
        'writev 0 0', 'readv 0 0', 'writev 10 0 5 0'),
    'writes of any alignment reach the file': on_raw(
        'write -P 1 1 1', 'write -P 2 511 2', 'write -P 3 4095 4098',
        'write -P 4 100 1000', 'writev -P 5 5000 1 1 1'),
    'zeroes replace data': on_raw(
        'write -P 9 0 1M', 'write -z 0 512', 'write -zu 4k 64k',
        'write -z 1000 1000', 'read -P 0 0 512', 'read -P 0 1000 1000',
        'read -P 9 2000 512', 'write -zf 1M 4k', 'write -z 0 0'),
    'a file gives the data to write': on_raw(
        'write -s pattern 0 512', 'write -s pattern 1000 5', 'read -v 0 32',
        'write -s empty 0 512', 'write -s missing 0 512',
        'write -s pattern -P 1 0 512'),
    'flags are accepted where they make sense': on_raw(
        'write -f 0 512', 'write -p 0 512', 'read -p 0 512', 'writev -f 0 5',
        'write -q 0 1', 'write -C 0 1', 'writev -q 0 1', 'writev -C 0 1',
        'read -C 0 1', 'read -q 0 1', 'readv -C 0 1 1', 'readv -q 0 1',
        'write -Cq 0 5'),
    'flags that exclude each other are refused': on_raw(
        'write -b -z 0 512', 'write -f -c 0 512', 'write -f -b 0 512',
        'write -n 0 512', 'write -u 0 512', 'write -z -P 1 0 512',
        'write -z -s pattern 0 512', 'aio_write -u 0 512',
        'aio_write -z 0 512 512', 'read -s 1 0 512', 'read -l 1 0 512'),
    'what raw cannot do is an error': on_raw(
        'write -b 0 512', 'read -b 0 512', 'write -c 0 512', 'read -b 1 512',
        'read -b 0 5', 'write -b 0 5', 'write -c 0 100', 'write -c 1 512'),
    'nothing lies beyond the end': on_raw(
        'read 4M 1', 'write 4M 1', 'read 4095k 2k', 'write 4095k 2k',
        'readv 4M 1', 'writev 4M 1', 'discard 4M 1', 'write -z 4M 512',
        'read 4M 0', 'write 7E 512', 'read 7E 1', 'discard 7E 5',
        'aio_read 4M 512', 'aio_flush', 'aio_write 4M 512', 'aio_flush',
        'aio_write -z 4M 512', 'aio_flush', 'discard 4M 0'),
    'discard may be called for any range': on_raw(
        'discard 0 64k', 'discard 5 5', 'discard -C 0 512', 'discard -q 0 1',
        'discard 0 0', 'flush'),
    'asynchronous requests end by aio_flush': on_raw(
        'aio_write -P 3 0 64k', 'aio_flush', 'aio_read -P 3 0 32k 32k',
        'aio_flush', 'aio_read -P 4 0 512', 'aio_flush', 'aio_read -v 0 20',
        'aio_flush', 'aio_write -q 0 5', 'aio_flush', 'aio_write -C 0 5 6',
        'aio_flush', 'aio_write -f 0 512', 'aio_flush', 'aio_read -q -v 0 1',
        'aio_flush', 'aio_read -Cv 0 1', 'aio_flush', 'aio_write -i 0 512',
        'aio_read -i 0 512', 'aio_flush'),
    'asynchronous requests end by the end of the program': on_raw(
        'aio_write -P 3 0 64k'),
}

IMAGE = {
    'the length changes with truncate': on_raw(
        'length', 'truncate 1M', 'length', 'truncate 8M', 'length', 'l',
        'read -P 0 7M 64k', 'truncate 0', 'length', 'read 0 1'),
    'new space can be reserved': on_raw(
        'truncate -m falloc 6M', 'length', 'truncate -m full 7M',
        'read -P 0 4M 3M', 'truncate -m off 5M', 'length'),
    'a raw image is one allocated area': on_raw(
        'map', 'info', 'i', 'alloc 0', 'alloc 0 4M', 'alloc 100 5',
        'alloc 511 512', 'alloc 4095k 4M', 'alloc 4M', 'alloc 0 0',
        'alloc 1k 1k', 'alloc 0 1T', 'truncate 0', 'map'),
    'close and open change the image': (RAW + ['@'], (
        'close', 'length', 'open -o driver=raw @', 'length', 'close',
        'open -r -o driver=raw @', 'length', 'c', 'o -o driver=raw @',
        'write -q 0 1', 'open @', 'l'), ''),
    'reopen changes how it is open': on_raw(
        'reopen', 'reopen -r', 'write 0 1', 'read 0 1', 'truncate 5',
        'discard 0 1', 'writev 0 1', 'aio_write 0 1', 'aio_flush',
        'write -z 0 1', 'reopen -w', 'write -P 4 0 1', 'reopen -c none',
        'write -P 5 512 1', 'read -P 5 512 1', 'reopen -c writethrough',
        'write -P 6 1k 1', 'reopen -c writeback', 'write -P 6 1k 1',
        'reopen -r -w', 'reopen -c x',
        'reopen x', 'reopen -Z', 'reopen -r -o read-only=on',
        'reopen -c none -o cache.direct=on', 'reopen -o'),
    'nothing works without an image': ([], (
        'read', 'read 0 1', 'close', 'aio_flush', 'length', 'reopen', 'map',
        'alloc 0', 'info', 'flush', 'help nosuch', 'open', 'open -Z',
        'break a b', 'truncate 1', 'quit'), ''),
}

ARGUMENTS = {
    'numbers of arguments are checked': on_raw(
        'read', 'read 0', 'read 0 1 2', 'readv', 'readv 0', 'write',
        'write 0', 'write 0 1 2', 'writev 0', 'aio_read', 'aio_read 0',
        'aio_write 0', 'aio_flush 1', 'flush 1', 'truncate', 'length 1',
        'info 1', 'discard', 'discard 0', 'discard 0 1 2', 'alloc',
        'alloc 1 2 3', 'map 1', 'close 1', 'break', 'break a', 'break a b c',
        'remove_break', 'remove_break a b', 'resume', 'resume a b',
        'wait_break', 'wait_break a b', 'sigraise', 'sigraise 1 2', 'sleep',
        'sleep 1 2', 'abort 1', 'help a b', 'truncate 1 2 3 4'),
    'unknown options show the usage': on_raw(
        'read -Z 0 1', 'readv -Z 0 1', 'write -Z 0 1', 'writev -z 0 1',
        'aio_read -z 0 1', 'aio_write -Z 0 1', 'discard -Z 0 1',
        'truncate -Z 1', 'r -Z 0 1', 'read 0 1 -Z', 'read -1 5', 'read -P 1',
        'read -s', 'help -x', 'd -x 0 1', 'truncate -x 0'),
    'sizes are checked': on_raw(
        'read x 1', 'read 0 x', 'read -- -5 5', 'read -- 0 -5', 'read 0x 1',
        'read 1.5k 1', 'read 1e3 1', 'read 0x10 0x1', 'read 1.5 1',
        'read 9E 1', 'read 8E 1', 'read 1kk 1', 'read 1b 1', 'read 1K 1',
        'read 99999999999999999999 1', 'read 0 4G', 'write 0 2147483137',
        'readv 0 512 x', 'readv 0 4G', 'writev 0 512 512x', 'discard 0 4G',
        'discard x 1', 'discard 0 x', 'truncate x', 'truncate 9E',
        'alloc x', 'alloc 0 x', 'alloc -- 0', 'aio_read x 1', 'aio_read 0 x',
        'aio_write x 1', 'aio_write 0 x', 'readv 0 1G 1G', 'readv x 1',
        'writev x 1', 'read -P 1 -s x 0 1', 'read -P 1 -l x 0 1',
        'sigraise x', 'sigraise 99', 'sigraise -1', 'sigraise 0'),
    'patterns are checked': on_raw(
        'read -P x 0 1', 'read -P 256 0 1', 'read -P -1 0 1', 'write -P 300 0 1',
        'write -P 0x 0 1', 'writev -P x 0 1', 'readv -P x 0 1',
        'aio_read -P x 0 1', 'aio_write -P x 0 1', 'write -P 255 0 1',
        'write -P 010 0 1', 'read -P 8 0 1', 'truncate -m x 1'),
    'times to sleep are checked': on_raw(
        'sleep 1', 'sleep 0', 'sleep x', 'sleep -1', 'sleep 1x'),
    'unknown commands are named': on_raw(
        'nosuch', 'nosuch 1 2', '', ' ', '#', 'read"', "re'ad' 0 1",
        'length; length', '  length  ', 'read\t0\t1', 'rv 0 1', 's 0'),
    'all commands are listed': on_raw('help', '?'),
    'break points need a node that has them': on_raw(
        'break a b', 'remove_break a', 'resume a'),
    'quit ends the commands': on_raw('length', 'quit', 'length'),
    'quit takes anything': on_raw('quit 1 2 3', 'length'),
}

SCRIPTS = {
    'commands come from standard input': script(
        'length\nread 0 1k\n\n# comment\n  length  \nq\nlength\n'),
    'the last line needs no end': script('length'),
    'nothing at all is fine': script(''),
    'a failed command of a script shows in the status': script('nosuch\n'),
    'a failed read of a script shows in the status': script(
        'read 4M 1\nlength\n'),
    'quoting does not exist': script('read "0" 1\nlen"gth"\n'),
    'a request ends before the next prompt or after': script(
        'aio_write -q 0 1k\naio_flush\nread -P 0xcd 0 1k\nquit\n'),
    'no image, but a script': ([], (), 'length\nhelp nosuch\nquit\n'),
}

# The reason is told in other words, but it is told, and the status is equal.
OTHER_WORDS = {
    'an image that is missing': (RAW + ['missing'], ('length',), ''),
    'rules that are missing': (RAW + ['blkdebug:missing:@'], (), ''),
    'half a name with rules': (RAW + ['blkdebug:@'], (), ''),
    'a directory': (RAW + ['.'], ('length',), ''),
    'an unknown driver': (['-f', 'nosuch', '@'], ('length',), ''),
    'image options without a driver': (['--image-opts', 'a=b'], (), ''),
    'image options that do not exist': (
        ['--image-opts', 'driver=raw,nosuch=1,file.driver=file,'
         'file.filename=@'], ('length',), ''),
    'raw without a file': (['--image-opts', 'driver=raw,size=1'], (), ''),
    'JSON that is none': (['json:{foo'], ('length',), ''),
    'an object that nobody knows': (['--object', 'foo', '@'], (), ''),
    'sharing by force needs read-only': (['-U'] + RAW + ['@'], (), ''),
    'a guess is told': (['@'], ('length', 'read 0 1'), ''),
    'a guess is told by open': ([], ('open @', 'length'), ''),
    'open says why it failed': ([], (
        'open missing', 'open -o driver=raw', 'open -r', 'open -t foo @',
        'open -d foo @', 'open -i foo @', 'open -o nosuch=1 @',
        'open -o driver=nosuch @', 'open @ @', 'open -f raw @'), ''),
    'reopen says why it failed': on_raw(
        'reopen -o nosuch=1', 'reopen -o driver=qcow2', 'length',
        'reopen -o read-only=x', 'write -P 1 0 512',
        'reopen -o file.filename=other'),
    'reopen to read-only by its option': on_raw(
        'reopen -r -o discard=unmap', 'write 0 1', 'read 0 1'),
    'lengths that no file can have': on_raw('truncate 7E', 'length'),
    'growing without data in metadata mode': on_raw(
        'truncate -m metadata 8M', 'length'),
}

SAME_WORDS = {
    'a cache mode that does not exist': (['-t', 'foo', '@'], (), ''),
    'a discard mode that does not exist': (['-d', 'foo', '@'], (), ''),
    'an aio mode that does not exist': (['-i', 'foo', '@'], (), ''),
    'two ways to name the format': (['--image-opts', '-f', 'raw', 'a=b'],
                                    (), ''),
    'image options': (['--image-opts', 'driver=raw,file.driver=file,'
                       'file.filename=@'], ('length', 'write 0 5'), ''),
    'JSON': (['json:{"driver": "raw", "file": {"driver": "file", '
              '"filename": "@"}}'], ('length', 'info', 'map'), ''),
    'JSON with dotted keys': (['json:{"driver": "raw", "file.driver": "file",'
                               '"file.filename": "@"}'], ('length',), ''),
    'read-only': (['-r'] + RAW + ['@'], (
        'write 0 1', 'writev 0 1', 'aio_write 0 1', 'truncate 5',
        'discard 0 512', 'write -z 0 512', 'flush', 'read 0 1', 'aio_flush',
        'reopen -w', 'write -P 5 0 1'), ''),
    'a temporary file for what is written': (['-s'] + RAW + ['@'], (
        'write -P 5 1000 70000', 'read -P 5 1000 70000', 'read 64k 8k',
        'write -z 0 64k', 'read -P 0 0 64k', 'discard 128k 64k', 'flush',
        'length'), ''),
    'a temporary file for an image that is opened': ([], (
        'open -s -o driver=raw @', 'write -P 5 0 512', 'read -P 5 0 512',
        'close', 'open -r -o driver=raw @', 'read -P 0xcd 0 512'), ''),
    'no temporary file for who only reads': (['-r', '-s'] + RAW + ['@'], (
        'write 0 512', 'read 0 512'), ''),
    'a reader that shares by force': (['-r', '-U'] + RAW + ['@'],
                                      ('read 0 512',), ''),
    'aio with threads': (['-i', 'threads'] + RAW + ['@'],
                         ('write -P 3 5 512', 'read -P 3 5 512'), ''),
    'aio with io_uring': (['-i', 'io_uring'] + RAW + ['@'],
                          ('write -P 3 5 512', 'read -P 3 5 512'), ''),
    'native aio past the page cache': (['-n', '-k'] + RAW + ['@'],
                                       ('write -P 3 5 512',), ''),
    'discard=unmap': (['-d', 'unmap'] + RAW + ['@'],
                      ('discard 0 64k', 'read -P 0 0 64k'), ''),
    'buffers that are not aligned': (['-n', '-m'] + RAW + ['@'],
                                     ('write -P 3 5 5000', 'read 1 777',
                                      'readv -P 3 5 100 1000'), ''),
    'a file by its prefix': (RAW + ['file:@'], ('length', 'map'), ''),
    'a file by its prefix, opened': ([], (
        'open -o driver=raw file:@', 'length', 'read -P 0xab 4k 1'), ''),
    'a disk that is nothing': (RAW + ['null-co://'], (
        'length', 'read 0 64k', 'write 0 4k'), ''),
    'break points by the name': (RAW + ['blkdebug::@'], (
        'break write_aio A', 'aio_write -P 1 0 512', 'wait_break A',
        'resume A', 'aio_flush', 'read -P 1 0 512'), ''),
    'rules by the name': (RAW + ['blkdebug:rules:@'], (
        'read 0 512', 'read 0 512'), ''),
    'rules by the name, a file by its prefix': (RAW + ['blkdebug:rules:file:@'],
                                                ('read 0 512',), ''),
    'a driver below raw': (['--image-opts', 'driver=null-co,size=1M,'
                            'read-zeroes=on'],
                           ('length', 'read -P 0 0 64k', 'write 0 1M',
                            'read 1M 1', 'discard 0 512'), ''),
}

BLKDEBUG = ('json:{"driver": "raw", "file": {"driver": "blkdebug", "image": '
            '{"driver": "file", "filename": "@"}%s}}')
DEBUG = {
    'a request waits at a break point': ([BLKDEBUG % ''], (
        'break nosuch A', 'break write_aio A', 'aio_write -P 1 0 512',
        'wait_break A', 'read 4k 512', 'resume B', 'resume A', 'aio_flush',
        'resume A', 'remove_break A', 'read -P 1 0 512'), ''),
    'a removed break point lets requests through': ([BLKDEBUG % ''], (
        'break write_aio A', 'remove_break A', 'write 0 512'), ''),
    'an injected error is told': ([BLKDEBUG % (
        ', "inject-error": [{"event": "read_aio", "errno": 5, "once": true}]'
    )], ('read 0 512', 'read 0 512'), ''),
}

QCOW2 = ['-f', 'qcow2']


def on_top(*commands):
    return QCOW2 + ['@'], commands, ''


TABLES = ('json:{"driver": "qcow2", "backing": null, "file": {"driver": '
          '"blkdebug", "image": {"driver": "file", "filename": "@"}%s}}')

# An image over 256 KiB of nines, with 64 KiB of threes at 64 KiB of its own.
LAYERS = {
    'map and alloc look at the top image alone': on_top(
        'map', 'alloc 0', 'alloc 64k', 'alloc 0 1M', 'alloc 65535 2',
        'read -P 9 0 64k', 'read -P 3 64k 64k', 'truncate 8M', 'map',
        'write -z 1M 64k', 'write 2M 1', 'discard 3M 64k', 'map',
        'alloc 0 8M'),
    'the lowest image of a chain': (QCOW2 + ['base'], (
        'map', 'alloc 0 4M', 'info'), ''),
    'the temporary file is the top image': (['-s'] + QCOW2 + ['@'], (
        'map', 'write -P 8 0 64k', 'map', 'alloc 64k', 'alloc 0'), ''),
    'info tells what the format tells': on_top('info', 'i'),
    'compressed clusters': on_top(
        'write -c -P 5 0 64k', 'read -P 5 0 64k', 'write -c 1k 64k',
        'write -c 0 1k', 'write -c -n 0 512', 'write -c -z 0 64k', 'map'),
    'zeroes of several kinds': on_top(
        'write -z 0 64k', 'write -zu 64k 64k', 'write -zn 128k 64k',
        'write -zn 1M 5', 'write -zfu 2M 64k', 'read -P 0 0 192k', 'map'),
    'requests over the edge of a layer': on_top(
        'read -P 3 63k 4k', 'read -P 9 60k 4k', 'readv -P 3 63k 2k 2k',
        'discard 64k 64k', 'read -P 3 64k 64k', 'read -P 9 64k 64k'),
    'lengths of a qcow2 image': on_top(
        'truncate -m metadata 9M', 'truncate -m full 10M',
        'truncate -m falloc 11M', 'length', 'truncate 0', 'length', 'map'),
    'a read waits where a table is loaded': ([TABLES % ''], (
        'break l2_load A', 'aio_read -P 3 64k 64k', 'wait_break A',
        'resume A', 'aio_flush', 'read -P 3 64k 64k'), ''),
    'a write waits where a table is written back': (
        ['-t', 'writethrough', TABLES % ''], (
            'break l2_update A', 'aio_write -P 7 128k 64k', 'wait_break A',
            'resume A', 'aio_flush', 'read -P 7 128k 64k', 'map'), ''),
    'an error where a table is loaded': ([TABLES % (
        ', "inject-error": [{"event": "l2_load", "errno": 5, "once": true}]'
    )], ('read 64k 64k', 'read -P 3 64k 64k'), ''),
}


def cache_modes():
    for mode in ('none', 'off', 'writeback', 'writethrough', 'directsync',
                 'unsafe'):
        yield f'cache mode {mode}', (
            ['-t', mode] + RAW + ['@'],
            ('write -P 1 1 5000', 'flush', 'read -P 1 1 5000', 'read 0 1'), '')


def fuzz(pair):
    """Words that commands know, in any order: equal, and no crash."""
    words = ['0', '1', '512', '1k', '4M', '4095k', '-q', '-C', '-v', '-P', '-z',
             '-f', '-u', '-s', '-l', '-n', '-c', '0x7', '7E', '9E', 'x', '-1',
             '--', '', '1.5', '-Z', '300', '0x', '-', '64k', '3', '\x7f']
    # truncate and alloc without words crash qemu-io or differ in rounding.
    names = ['read', 'readv', 'write', 'writev', 'discard', 'r', 'w', 'd',
             'length', 'flush', 'map', 'info', 'nosuch', 'help', 'resume']
    chance = random.Random(FUZZ_SEED)
    for number in range(0, FUZZ_ROUNDS, 20):
        commands = [' '.join([chance.choice(names)] +
                             [chance.choice(words)
                              for _ in range(chance.randrange(6))])
                    for _ in range(20)]
        commands = [c for c in commands if not c.startswith('help')]
        pair.compare(f'fuzz {number}', on_raw(*commands))


def fuzz_alone(bg_io, folder):
    """Any bytes: no signal, no hang."""
    chance = random.Random(FUZZ_SEED)
    names = ['read', 'write', 'aio_read', 'aio_write', 'truncate', 'alloc',
             'open', 'reopen', 'close', 'break', 'resume', 'remove_break',
             'wait_break', 'help', '?', 'readv', 'sleep', 'info']
    alphabet = 'abcdefrwqzPu0123456789-xkMGTPE.,=:{}"%s \t\x01\x7fé'
    (folder / 'fuzz.img').write_bytes(bytes(65536))
    for number in range(FUZZ_ROUNDS):
        word = [''.join(chance.choice(alphabet)
                        for _ in range(chance.randrange(12)))
                for _ in range(chance.randrange(8))]
        command = ' '.join([chance.choice(names)] + word)
        if command.startswith('sleep'):
            command = 'sleep ' + ''.join(word)[:1]
        argv = [bg_io] + chance.choice([RAW + ['fuzz.img'], word[:3], []])
        done = subprocess.run(argv + ['-c', command, '-c', 'length'],
                              cwd=folder, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT_S,
                              check=False)
        if done.returncode not in (0, 1):
            failures.append(f'fuzz alone {number}')
            print(f'FAILED: {argv} {command!r}: {done.returncode}\n'
                  f'{done.stderr.decode(errors="replace")}')


def refusals(bg_io, folder):
    """What bg-io cannot do is refused, naming the option."""
    for argv, word in ((['-T', 'x=y'], '--trace'),
                       (['-C', '-r', '-f', 'raw', 'pattern'], 'copy-on-read'),
                       (['-s', '-f', 'raw', 'none'], 'none')):
        done = subprocess.run([bg_io] + argv, cwd=folder, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=TIMEOUT_S, check=False)
        if done.returncode != 1 or word not in done.stderr:
            failures.append(f'refuse {argv}')
            print(f'FAILED: {argv}: {done.returncode}\n{done.stderr}')


def copies_on_read(pair):
    """With -C, what is read from a backing file is in the image then."""
    left = []
    for name, tool in pair.tools.items():
        folder = pair.folders[name]
        shutil.copyfile(pair.image, folder / 'base.img')
        for command in (['qemu-img', 'create', '-q', '-f', 'qcow2', '-b',
                         'base.img', '-F', 'raw', 'top.qcow2'],
                        [tool, '-C', '-f', 'qcow2', '-c', 'read 0 64k',
                         'top.qcow2'],
                        [tool, '-c', 'open -C -o driver=qcow2 top.qcow2',
                         '-c', 'read 128k 1k']):
            subprocess.run(command, cwd=folder, check=True,
                           capture_output=True, timeout=TIMEOUT_S)
        extents = json.loads(subprocess.run(
            ['qemu-img', 'map', '--output=json', 'top.qcow2'], cwd=folder,
            check=True, capture_output=True, timeout=TIMEOUT_S).stdout)
        left.append([e['start'] for e in extents if e['depth'] == 0])
    if left[0] != left[1] or len(left[0]) != 2:
        failures.append('copies on read')
        print(f'FAILED: copies on read: {left}')


def layers(pair):
    """Images over images; how they are laid out is not compared."""
    def must(*command):
        subprocess.run(command, cwd=pair.image.parent, check=True,
                       capture_output=True, timeout=TIMEOUT_S)
    raw = pair.image
    pair.image = raw.parent / 'layers.qcow2'
    must('qemu-img', 'create', '-f', 'qcow2', 'base', '4M')
    must('qemu-io', '-f', 'qcow2', '-c', 'write -P 9 0 256k', 'base')
    must('qemu-img', 'create', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2',
         pair.image)
    must('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 64k 64k', pair.image)
    for folder in pair.folders.values():
        shutil.copyfile(raw.parent / 'base', folder / 'base')
    for title, case in LAYERS.items():
        pair.compare(title, case, content=False)
    pair.image = raw


def suspended(bg_io, folder):
    """Nothing waits for a request that nobody can resume."""
    (folder / 'held.img').write_bytes(bytes(65536))
    commands = ['break write_aio A', 'aio_write -q 0 512', 'wait_break A',
                'break write_aio A', 'aio_write -q 512 512', 'resume A',
                'aio_flush']
    for more, code in ((['quit'], 1), ([], 1), (['resume A', 'aio_flush'], 1)):
        argv = [bg_io]
        for command in commands + more:
            argv += ['-c', command]
        done = subprocess.run(argv + [(BLKDEBUG % '').replace('@', 'held.img')],
                              cwd=folder, text=True, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT_S,
                              check=False)
        if (done.returncode != code or
                done.stdout.count("suspended as 'A' and does not end") != 1):
            failures.append('suspended')
            print(f'FAILED: {argv}: {done.returncode}\n{done.stdout}'
                  f'{done.stderr}')


def main():
    if not shutil.which('qemu-io'):
        print('qemu-io is missing')
        return 77
    bg_io = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair = Pair(bg_io, folder)
        for group, errors in ((DATA, EXACT), (IMAGE, EXACT),
                              (ARGUMENTS, EXACT), (SCRIPTS, EXACT),
                              (SAME_WORDS, EXACT), (DEBUG, EXACT),
                              (OTHER_WORDS, SPOKEN),
                              (dict(cache_modes()), EXACT)):
            for title, case in group.items():
                pair.compare(title, case, errors)
        refusals(bg_io, folder)
        copies_on_read(pair)
        layers(pair)
        suspended(bg_io, folder)
        fuzz(pair)
        fuzz_alone(bg_io, folder)
    print(f'{len(failures)} failures')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
