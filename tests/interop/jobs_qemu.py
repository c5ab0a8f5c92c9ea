#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stream, commit and mirror leave is good for QEMU.

    jobs_qemu.py BENCH_JOBS

Chains are made by qemu-img and qemu-io, a job runs on them, then qemu-img
looks: each image is sound, the chain shows what it did before, names what it
should, and zeroes take no room.  Exit status 77: no qemu-img.
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT_S = 60
LAYERS = 4

failures = []

# Writes to each layer, the lowest first; sizes in MiB.
LAYOUTS = {
    'equal': ([4, 4, 4, 4],
              [['write -P 1 0 3M'],
               ['write -P 2 512k 1M', 'write -z 2M 256k'],
               ['write -P 3 1M 100k', 'write -P 4 3M 64k'],
               ['write -P 5 64k 4k']]),
    'lengths differ': ([4, 2, 5, 6],
                       [['write -P 1 0 4M'],
                        ['write -P 2 1M 64k'],
                        ['write -P 3 4M 512k', 'write -z 64k 64k'],
                        ['write -P 4 5M 65k']]),
}

CREATE_OPTIONS = ['compat=1.1', 'compat=0.10', 'cluster_size=4k',
                  'extended_l2=on', 'cluster_size=2M']

# The job, its options, and the backing file of i3 afterwards.
JOBS = [
    ('stream', 'device=i3', None),
    ('stream', 'device=i3,base=i0', 'i0'),
    ('stream', 'device=i3,bottom=i2,max-workers=1', 'i1'),
    ('stream', 'device=i2,base=i0', 'i2'),
    ('commit', 'device=i3,top=i2', 'i0'),
    ('commit', 'device=i3,top=i2,base=i1', 'i1'),
    ('commit', 'device=i3,top=i1,base=i0,max-workers=1', 'i2'),
]


def run(folder, *command):
    done = subprocess.run(command, cwd=folder, text=True, timeout=TIMEOUT_S,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    return done.returncode, done.stdout


def must(folder, *command):
    status, out = run(folder, *command)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}: {out}")
    return out


def make_chain(folder, options, sizes, writes):
    for i in range(LAYERS):
        backing = ['-b', f'i{i - 1}', '-F', 'qcow2'] if i else []
        must(folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options,
             *backing, f'i{i}', f'{sizes[i]}M')
        commands = [word for line in writes[i] for word in ('-c', line)]
        must(folder, 'qemu-io', '-f', 'qcow2', *commands, f'i{i}')
    must(folder, 'qemu-img', 'convert', '-O', 'raw', f'i{LAYERS - 1}',
         'before')


def blockdevs():
    for i in range(LAYERS):
        yield '--blockdev'
        yield (f'qcow2,node-name=i{i},file.driver=file,file.filename=i{i},'
               f"read-only={'off' if i == LAYERS - 1 else 'on'}"
               + (f',backing=i{i - 1}' if i else ''))


def chain_of(folder):
    """The images that the highest one leads to."""
    out = must(folder, 'qemu-img', 'info', '--output=json', '--backing-chain',
               f'i{LAYERS - 1}')
    return json.loads(out)


def data_bytes(folder):
    """How much of the disk is stored as data, in all layers of the chain."""
    extents = json.loads(must(folder, 'qemu-img', 'map', '--output=json',
                              f'i{LAYERS - 1}'))
    return sum(e['length'] for e in extents if e['data'])


def check(folder, program, job, options, backing):
    before = data_bytes(folder)
    must(folder, program, job, options, *blockdevs())
    for info in chain_of(folder):
        must(folder, 'qemu-img', 'check', '-q', '-f', 'qcow2',
             info['filename'])
    must(folder, 'qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2',
         'before', f'i{LAYERS - 1}')
    top = chain_of(folder)[0]
    if top.get('backing-filename') != backing:
        raise RuntimeError(f"names {top.get('backing-filename')}")
    return before, data_bytes(folder)


def case(program, options, layout, job):
    sizes, writes = LAYOUTS[layout]
    folder = tempfile.mkdtemp(prefix='jobs-qemu-')
    try:
        make_chain(folder, options, sizes, writes)
        before, after = check(folder, program, *job)
        # Version 2 has no zeroes, and a cluster is copied as a whole.
        if options not in ('compat=0.10', 'cluster_size=2M') and \
                after > before:
            raise RuntimeError(f'{before} bytes of data became {after}')
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        failures.append(f'{options}, {layout}, {job[0]} {job[1]}: {error}')
    finally:
        shutil.rmtree(folder)


def mirror(folder, program, target, more):
    """Mirror the highest image to a file with old data."""
    size = sizes_mib(folder)
    must(folder, 'qemu-img', 'create', '-q', '-f', target, 'target', f'{size}M')
    must(folder, 'qemu-io', '-f', target, '-c', f'write -P 9 0 {size}M',
         'target')
    must(folder, program, 'mirror', f'device=i{LAYERS - 1},target=t,{more}',
         *blockdevs(), '--blockdev', f'{target},node-name=t,discard=unmap,'
         'file.driver=file,file.filename=target,file.discard=unmap')
    if target == 'qcow2':
        must(folder, 'qemu-img', 'check', '-q', '-f', target, 'target')
    for image, form in (('before', 'raw'), (f'i{LAYERS - 1}', 'qcow2')):
        must(folder, 'qemu-img', 'compare', '-q', '-f', form, '-F', target,
             image, 'target')
    extents = json.loads(must(folder, 'qemu-img', 'map', '--output=json', '-f',
                              target, 'target'))
    return sum(e['length'] for e in extents if e['data'])


def sizes_mib(folder):
    return chain_of(folder)[0]['virtual-size'] >> 20


def mirror_case(program, layout, target, more):
    sizes, writes = LAYOUTS[layout]
    folder = tempfile.mkdtemp(prefix='jobs-qemu-')
    try:
        make_chain(folder, 'compat=1.1', sizes, writes)
        before = data_bytes(folder)
        after = mirror(folder, program, target, more)
        if after > before:
            raise RuntimeError(f'{before} bytes of data became {after}')
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        failures.append(f'{layout}, mirror to {target}, {more}: {error}')
    finally:
        shutil.rmtree(folder)


def active_case(program, layout, base):
    """Commit the highest image; the base then shows what that did."""
    sizes, writes = LAYOUTS[layout]
    folder = tempfile.mkdtemp(prefix='jobs-qemu-')
    try:
        make_chain(folder, 'compat=1.1', sizes, writes)
        must(folder, program, 'commit', f'device=i{LAYERS - 1},base={base}',
             *blockdevs())
        for i in range(LAYERS):
            must(folder, 'qemu-img', 'check', '-q', '-f', 'qcow2', f'i{i}')
        must(folder, 'qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2',
             'before', base)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        failures.append(f'{layout}, commit to {base}: {error}')
    finally:
        shutil.rmtree(folder)


MIRRORS = ['sync=full', 'sync=full,granularity=4k,buf-size=64k',
           'sync=full,copy-mode=write-blocking,max-workers=1']


def main():
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        sys.exit(77)
    program = str(Path(sys.argv[1]).resolve())
    for options in CREATE_OPTIONS:
        for layout in LAYOUTS:
            for job in JOBS:
                case(program, options, layout, job)
    for layout in LAYOUTS:
        for target in ('raw', 'qcow2'):
            for more in MIRRORS:
                mirror_case(program, layout, target, more)
        for base in ('i0', 'i1', 'i2'):
            active_case(program, layout, base)
    for failure in failures:
        print(failure)
    cases = len(CREATE_OPTIONS) * len(JOBS) + 2 * len(MIRRORS) + 3
    print(f'{cases * len(LAYOUTS)} cases, {len(failures)} failed')
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
