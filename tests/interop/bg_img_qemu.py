#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-img and qemu-img do the same things and say the same words.

    bg_img_qemu.py BG_IMG

Each case is a list of commands.  It runs with either program in a folder of
its own, after the same preparation by qemu-img; compared are exit statuses
and what is printed, as strictly as the case says.  Then qemu-img looks at what
bg-img has left.  Exit status 77: no qemu-img.
"""
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT_S = 60

failures = []

PREPARE = '''
qemu-img create -q -f qcow2 base 4M
qemu-io -f qcow2 -c 'write -P 1 0 1M' base >/dev/null
qemu-img create -q -f qcow2 -b base -F qcow2 top
qemu-io -f qcow2 -c 'write -P 2 512k 1M' -c 'write -z 3M 64k' top >/dev/null
qemu-img snapshot -c first top
qemu-io -f qcow2 -c 'write -P 3 2M 64k' top >/dev/null
qemu-img create -q -f raw raw 1M
qemu-io -f raw -c 'write -P 4 64k 64k' raw >/dev/null
qemu-img create -q -f qcow2 leaky 1M
printf '\\0\\1' | dd of=leaky bs=1 seek=131082 conv=notrunc 2>/dev/null
qemu-img create -q -f qcow2 corrupt 1M
qemu-io -f qcow2 -c 'write 0 64k' corrupt >/dev/null
printf '\\0\\0' | dd of=corrupt bs=1 seek=131082 conv=notrunc 2>/dev/null
'''

# Strictness: 'text' the same words, 'errors' the same errors, 'json' the same
# values, 'info' the same words but for the disk size, 'status' only the same
# exit status.
CASES = [
    ('check a good image', 'text', ['check -f qcow2 base']),
    ('check as JSON', 'json', ['check -f qcow2 --output=json base']),
    ('check finds a leak', 'text', ['check -f qcow2 leaky']),
    ('check finds an error', 'status', ['check -f qcow2 corrupt']),
    ('check repairs a leak', 'text', ['check -f qcow2 -r leaks leaky',
                                      'check -f qcow2 leaky']),
    ('check repairs an error', 'status', ['check -f qcow2 -r all corrupt',
                                          'check -f qcow2 corrupt']),
    ('check knows no raw', 'status', ['check -f raw raw']),
    ('check of nothing', 'status', ['check -f qcow2 nothing']),
    ('check -r what', 'status', ['check -f qcow2 -r some base']),
    ('info as JSON', 'json', ['info -f qcow2 --output=json base',
                              'info -f raw --output=json raw',
                              'info -f qcow2 --output=json top']),
    ('info of a chain', 'json',
     ['info -f qcow2 --output=json --backing-chain top']),
    ('info', 'info', ['info -f qcow2 base', 'info -f raw raw',
                      'bitmap --add base b', 'bitmap --add --disable base c',
                      'info -f qcow2 base', 'info --backing-chain -f qcow2 '
                      'base']),
    ('info names the image', 'info', [
        f'info {how} {name}'
        for how in ('', '--output=json') for name in (
            '--image-opts driver=qcow2,file.driver=file,file.filename=top',
            '--image-opts driver=qcow2,file.filename=$PWD/top,cache.direct=on '
            '| sed "s,$PWD,PWD,"',
            '--image-opts driver=qcow2,file.filename=top,lazy-refcounts=on',
            '--image-opts driver=qcow2,file.driver=raw,'
            'file.file.filename=base',
            '--image-opts driver=raw,file.filename=raw',
            '--image-opts driver=raw,file.driver=raw,file.file.filename=raw',
            '--image-opts driver=raw,size=512,file.filename=raw',
            '--image-opts driver=raw,offset=1024,size=512,file.filename=raw',
            '--image-opts driver=file,filename=raw',
            '--image-opts driver=null-co',
            '--image-opts driver=null-co,size=5M',
            '--image-opts driver=blkdebug,image.driver=file,image.filename=raw',
            '--image-opts driver=raw,file.driver=blkdebug,'
            'image.driver=file,file.image.filename=raw',
            '--image-opts driver=qcow2,file.driver=blkdebug,'
            'file.image.driver=file,file.image.filename=top',
            """'json:{"driver":"qcow2","file":{"driver":"file","filename":"top"}}'""",
            """'json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"raw"}}'""",
            '-f raw blkdebug::raw', 'null-co://', '-f raw file:raw',
            '-f raw ./raw', '-f qcow2 $PWD/base | sed "s,$PWD,PWD,"')]),
    ('snapshots', 'text', ['snapshot -l top']),
    ('apply a snapshot', 'status', ['snapshot -a first top',
                                    'snapshot -a nope top',
                                    'snapshot -d first top',
                                    'snapshot -d first top']),
    ('--force is short for --force-share', 'status',
     ['convert --force -f qcow2 -O raw base out', 'check --force -f qcow2 base',
      'map --force -f qcow2 base', 'amend --force -f qcow2 base']),
    ('options of other commands', 'status',
     ['map --disable base', 'map --salvage -f qcow2 base',
      'convert --disable base out']),
    ('map', 'text', ['map -f qcow2 top', 'map -f raw raw']),
    ('map as JSON', 'map', ['map -f qcow2 --output=json top']),
    ('map a part', 'map', ['map -f qcow2 --output=json --start-offset=1M '
                           '--max-length=1M top']),
    ('compare', 'text', ['compare -f qcow2 -F qcow2 top base',
                         'compare -f qcow2 -F qcow2 base base',
                         'compare -f qcow2 -F raw base raw']),
    ('compare strictly', 'text', ['compare -s -f qcow2 -F raw base raw']),
    ('a cache mode that is none', 'status',
     ['check -T x -f qcow2 base', 'compare -T x base base',
      'convert -T x -O raw base out']),
    ('compare with nothing', 'status', ['compare base nothing']),
    ('grow', 'text', ['resize -f qcow2 base +1M', 'resize -f qcow2 base 8M']),
    ('shrink', 'status', ['resize -f qcow2 base 1M',
                          'resize -f qcow2 --shrink base 1M',
                          'resize -f qcow2 --shrink base -- -512k']),
    ('create from a base', 'status',
     ['create -q -f qcow2 -b base -F qcow2 new',
      'create -q -f qcow2 -b nothing -F qcow2 new2',
      'create -q -f qcow2 -b base new3']),
    ('create with wrong options', 'status',
     ['create -q -f qcow2 -o cluster_size=3k new 1M',
      'create -q -f qcow2 -o nonsense=1 new 1M',
      'create -q -f qcow2 -o refcount_bits=17 new 1M',
      'create -q -f qcow2 new 12x', 'create -q -f qcow2 new',
      'create -q -f nonsense new 1M']),
    ('measure', 'text', ['measure -O qcow2 --size 1G',
                         'measure -O raw --size 1M',
                         'measure -f qcow2 -O qcow2 base']),
    ('measure bitmaps', 'text',
     ['bitmap --add base one', 'bitmap --add -g 512 base another-one',
      'measure -f qcow2 -O qcow2 base',
      'measure -f qcow2 -O qcow2 -o cluster_size=512 base',
      'measure -f qcow2 -O qcow2 -o compat=0.10 base']),
    ('measure as JSON', 'json',
     ['measure --output=json -O qcow2 -o cluster_size=4k --size 1T']),
    ('amend', 'status', ['amend -f qcow2 -o compat=0.10 base',
                         'amend -f qcow2 -o compat=1.1,lazy_refcounts=on '
                         'base', 'amend --force -f qcow2 -o compat=1.1 base',
                         'amend -f qcow2 -o nonsense=on base']),
    ('amend the size', 'text',
     ['create -q -f qcow2 short 1M', 'amend -f qcow2 -o size=2M short',
      'amend -f qcow2 -o size=512k short',
      'create -q -f qcow2 -b base -F qcow2 over 1M',
      'amend -f qcow2 -o size=3M over',
      'convert -f qcow2 -O raw over out.raw', 'convert -f qcow2 -O raw short out2.raw']),
    ('quiet progress', 'text',
     ['convert -p -q -f qcow2 -O raw top out.raw',
      'rebase -q -p -f qcow2 -b base -F qcow2 top',
      'commit -p -q -f qcow2 top']),
    ('progress that cannot be shown', 'status',
     ['convert -p -f qcow2 -O raw top out.raw >/dev/full',
      'compare -q -p -f qcow2 top top >/dev/full',
      'commit -q -p -f qcow2 top >/dev/full',
      'commit -p -f qcow2 top >&-']),
    ('rebase', 'status', ['rebase -f qcow2 -u -b "" top',
                          'rebase -f qcow2 -u -b base -F qcow2 top']),
    ('bitmaps', 'status', ['bitmap --add base one', 'bitmap --add base one',
                           'bitmap --add -g 4096 base two',
                           'bitmap --remove base nope',
                           'bitmap --remove base one', 'bitmap base two']),
    ('change bitmaps', 'status',
     ['bitmap --add -g 4096 --disable base one', 'bitmap --add base two',
      'bitmap --enable --clear --disable base two',
      'bitmap --merge one --enable base two', 'bitmap --clear base nope',
      'bitmap --merge nope base one', 'bitmap --remove --add base two',
      'bitmap --disable --remove --clear base one']),
    ('merge bitmaps of another image', 'status',
     ['create -q -f qcow2 other 4M', 'bitmap --add other one',
      'bitmap --add --merge one -b other -F qcow2 base two',
      'bitmap --merge one -b nothing -F qcow2 base two',
      'bitmap --merge nope -b other -F qcow2 base two']),
    ('bitmap options that do not fit', 'status',
     ['bitmap --add base one', 'bitmap --merge one -F qcow2 base one',
      'bitmap -g 4096 --clear base one',
      'bitmap --add -b base -F qcow2 base two']),
    ('bitmaps after changes', 'status',
     ['bitmap --add -g 4096 base one', 'bitmap --add base two',
      'bitmap --disable base two', 'bitmap --add -g 1M base three',
      'bitmap --clear base three', 'bitmap --remove base one']),
    ('convert', 'text', ['convert -f qcow2 -O raw top out.raw',
                         'convert -f raw -O qcow2 raw out.qcow2',
                         'convert -f raw -O qcow2 -c raw packed.qcow2',
                         'compare -f raw -F qcow2 raw packed.qcow2',
                         'convert -f qcow2 -O raw -l first top old.raw',
                         'convert -f qcow2 -O qcow2 -B base -F qcow2 top '
                         'over.qcow2',
                         'compare -f qcow2 -F qcow2 top over.qcow2']),
    ('convert to what is there', 'status',
     ['create -q -f qcow2 out 4M', 'convert -n -f qcow2 -O qcow2 top out',
      'compare -f qcow2 -F qcow2 top out', 'create -q -f qcow2 small 1M',
      'convert -n -f qcow2 -O qcow2 top small']),
    ('convert with bitmaps', 'status',
     ['bitmap --add -g 4096 base one', 'bitmap --add --disable base two',
      'convert -f qcow2 -O qcow2 --bitmaps base out',
      'convert -f qcow2 -O raw --bitmaps base out.raw',
      'convert -f qcow2 -O qcow2 --skip-broken-bitmaps base out2',
      'convert -f qcow2 -O qcow2 --bitmaps base top out2']),
    ('convert in other ways', 'status',
     ['convert -m 2 -W -C -f raw -O qcow2 raw out',
      'convert -r 100M -f raw -O raw raw out.raw',
      'convert --salvage -S 64k -f qcow2 -O qcow2 top out3',
      'convert -C -c -f raw -O qcow2 raw out2',
      'convert -C -S 4k -f raw -O qcow2 raw out2',
      'convert -S 16M -f raw -O raw raw out.raw',
      'convert -S 17M -f raw -O raw raw out.raw',
      'convert -r x -f raw -O qcow2 raw out2',
      'convert -m 17 -f raw -O qcow2 raw out2',
      'convert -n --target-image-opts -f raw raw '
      'driver=qcow2,file.driver=file,file.filename=out',
      'convert --target-image-opts -f raw raw driver=raw,file.filename=raw',
      'convert --target-is-zero -f raw -O qcow2 raw out2']),
    ('dd', 'status',
     ['dd -f qcow2 -O raw bs=64k if=top of=out.raw',
      'dd -f qcow2 -O qcow2 bs=1M count=2 if=top of=out',
      'dd -f raw bs=64k skip=1 if=raw of=out1.raw',
      'dd -f raw bs=64k skip=1 count=2 if=raw of=out2.raw',
      'dd -f raw bs=512 skip=100 count=3000 if=raw of=out3.raw',
      'dd -f raw bs=1M skip=5 if=raw of=out4.raw',
      'dd -f raw count=7 if=raw of=out5.raw',
      'dd if=raw', 'dd of=x', 'dd nonsense=1 if=raw of=x',
      'dd bs=2G if=raw of=x', 'dd bs=0 if=raw of=x', 'dd bs=1x if=raw of=x',
      'dd -f raw if=nothing of=x']),
    ('commit', 'status',
     ['commit -f qcow2 top', 'check -f qcow2 base', 'commit -f qcow2 top']),
    ('progress that begins at the beginning', 'text',
     ["commit -p top | tr '\\r' '\\n' | sed -n '1{/100.00/p}'",
      "commit -p top | tr '\\r' '\\n' | grep -c 100.00 | sed 's/[1-9].*/some/'"]),
    ('compare images of two sizes', 'text',
     ['create -q -f qcow2 long 8M', 'create -q -f qcow2 -b base -F qcow2 '
      'over 8M', 'compare -f raw -F qcow2 raw base || :',
      'compare -f qcow2 -F qcow2 base over', 'compare -f qcow2 base long',
      'compare -q -f qcow2 over base', 'compare -s -f qcow2 over base',
      'resize -q -f raw raw 2M', 'convert -f raw -O qcow2 raw two',
      'resize -q -f raw raw 3M', 'compare -f raw -F qcow2 raw two']),
    ('snapshots with names like the IDs of others', 'status',
     ['snapshot -c 1 top', 'convert -f qcow2 -O raw -l 1 top one.raw',
      'convert -f qcow2 -O raw -l snapshot.id=1 top id.raw',
      'convert -f qcow2 -O raw -l snapshot.name=1 top name.raw',
      'convert -f qcow2 -O raw -l snapshot.id=2,snapshot.name=1 top both.raw',
      'convert -f qcow2 -O raw -l snapshot.id=1,snapshot.name=1 top no.raw',
      'convert -f qcow2 -O raw -l snapshot.name=2 top no.raw',
      'convert -f qcow2 -O raw -l snapshot.id=first top no.raw',
      'convert -f qcow2 -O raw -l snapshot.id=1,nope=1 top no.raw',
      'convert -f qcow2 -O raw -l snapshot.nope=1 top no.raw',
      'compare -f raw -F raw one.raw id.raw',
      'compare -f raw -F raw id.raw name.raw',
      'compare -f raw -F raw name.raw both.raw',
      'measure -O raw -f qcow2 -l snapshot.name=2 top',
      'snapshot -d 2 top', 'snapshot -d 1 top',
      'convert -f qcow2 -O raw -l first top left.raw',
      'convert -f qcow2 -O raw -l 2 top no.raw']),
    ('commit and drop', 'text',
     ['commit -f qcow2 -d top', 'snapshot -l top', 'commit -q top']),
    ('commit as told', 'status',
     ['commit -p -f qcow2 top', 'commit -f qcow2 base',
      'commit -f qcow2 -b nothing top', 'commit -r x top', 'commit',
      'create -q -f qcow2 -b top -F qcow2 third 5M',
      'commit -f qcow2 -r 1G -b base third', 'commit -f qcow2 third']),
    ('rebase with the content', 'status',
     ['create -q -f qcow2 -b top -F qcow2 third 5M',
      'convert -f qcow2 -O qcow2 top other',
      'rebase -f qcow2 -b other -F qcow2 top', 'rebase -b base -F qcow2 third',
      'rebase -p -f qcow2 -b "" third', 'rebase -f qcow2 top',
      'rebase -f qcow2 -b nothing -F qcow2 top',
      'rebase -f qcow2 -b other top', 'rebase -u -b base top',
      'rebase -f qcow2 -b raw -F raw top']),
    ('rebase past a layer that is shorter', 'status',
     ['create -q -f qcow2 -b base -F qcow2 short 512k',
      'create -q -f qcow2 -b short -F qcow2 long 4M',
      'rebase -f qcow2 -b base -F qcow2 long']),
    ('bench with options that do not fit', 'status',
     ['bench --flush-interval=10 base', 'bench --flush-interval=10 -w base',
      'bench --pattern=300 -w base', 'bench -s 10M -c 1 base',
      'bench -c x base', 'bench', 'bench -c 10 nothing']),
    ('options there are none of', 'errors',
     ['map --bogus base', 'map -Z base', 'check -f', 'check -r',
      'info --output', 'create --bogus=1', 'convert -q -Z base x']),
    ('numbers and lists that are none', 'errors',
     ['map --start-offset=x base', 'map --max-length=-1 base',
      'dd if=base of=x bs=x', 'dd if=base of=x count=', 'create -f raw x 9x',
      'bitmap --add -g x base b', 'create -f qcow2 -o "" new 1M',
      'amend -o "" base', 'create -f qcow2 -o size=5M new 1M',
      'resize --shrink -f qcow2 base 0', 'create -f raw x 1M 2M']),
    ('convert with options that do nothing', 'status',
     ['convert -n -O qcow2 -o compat=1.1 raw base',
      'convert -O qcow2 -B base -F qcow2 raw raw out',
      'convert -O qcow2 -o help raw out', 'convert -O qcow2 -o help']),
    ('what goes only with some formats', 'status',
     ['convert --bitmaps -f raw -O qcow2 raw out', 'snapshot -l raw',
      'compare base', 'compare base raw top', 'convert -m x base out',
      'convert -r "" base out', 'commit -r x top']),
    ('bitmaps where there can be none', 'status',
     ['create -q -f qcow2 -o compat=0.10 old 1M',
      'convert --bitmaps -O qcow2 old out',
      'convert --bitmaps --skip-broken-bitmaps -O qcow2 old out',
      'convert --bitmaps -O qcow2 -o compat=0.10 base out',
      'convert -n --bitmaps -O qcow2 base old',
      'convert --bitmaps -O raw base out', 'convert --bitmaps -O qcow2 base out']),
    ('measure bitmaps where there can be none', 'text',
     ['create -q -f qcow2 -o compat=0.10 old 1M', 'measure -O qcow2 old']),
    ('events to trace', 'status',
     ['-T nope info base', '--trace=nope info base', '--trace nope info base',
      '-Tnope info base', '-T events=nothing info base', '-T x=y info base',
      '-T', '--tracex info base', '-T nope,events=names,file=out info base',
      '-T nope nonsense', '-T nope', '--trace=nope -T nope', '-T x=y',
      '-T nope --version', '-T nope --help']),
    ('no such command', 'status', ['nonsense', '']),
]


def run(command, folder):
    done = subprocess.run(['sh', '-c', command], cwd=folder, text=True,
                          capture_output=True, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stdout, done.stderr


def same_json(ours, theirs):
    """Files of holes take what room they take; newer versions say more."""
    def strip(value):
        if isinstance(value, list):
            return [strip(v) for v in value]
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items()
                    if k not in ('actual-size', 'children')}
        return value
    return strip(json.loads(ours)) == strip(json.loads(theirs))


def by_content(name):
    """Names of JSON are the same whatever stands first, or in quotes."""
    return (re.sub(r': (\d+)', r': "\1"', json.dumps(
        json.loads(name[5:]), sort_keys=True)) if name.startswith('json:')
            else name)


def same_info(ours, theirs):
    """Files of holes take what room they take."""
    if ours.startswith('{'):
        sides = [json.loads(text) for text in (ours, theirs)]
        for side in sides:
            side['filename'] = by_content(side['filename'])
        return same_json(*(json.dumps(side) for side in sides))
    ours, theirs = (re.sub(r'(?m)^image: (.*)', lambda m: by_content(m[1]),
                           re.sub(r'(?m)^disk size: .*', 'disk size: N', text))
                    for text in (ours, theirs))
    return ours == theirs


def same_map(ours, theirs):
    def strip(text):
        return [{k: e.get(k) for k in ('start', 'length', 'depth', 'present',
                                       'zero', 'data', 'offset')}
                for e in json.loads(text)]
    return strip(ours) == strip(theirs)


def differs(how, ours, theirs):
    """What is different, or None."""
    if ours[0] != theirs[0]:
        return f'status {ours[0]}, qemu-img {theirs[0]}\n{ours[1]}{ours[2]}'
    if ours[0] not in (0, 2, 3) and not ours[1] + ours[2]:
        return 'failed without a word'
    if how == 'errors':
        return (None if re.sub('qemu-img', 'bg-img', theirs[2]) == ours[2]
                else f'--- bg-img\n{ours[2]}--- qemu-img\n{theirs[2]}')
    same = {'status': lambda a, b: True,
            'text': lambda a, b: re.sub('qemu-img', 'bg-img', b) == a,
            'json': same_json, 'map': same_map, 'info': same_info}[how]
    if theirs[0] == 0 and not same(ours[1], theirs[1]):
        return f'--- bg-img\n{ours[1]}--- qemu-img\n{theirs[1]}'
    return None


def bitmaps_of(path):
    info = json.loads(run(f'qemu-img info -f qcow2 --output=json {path}',
                          path.parent)[1])
    bitmaps = info['format-specific']['data'].get('bitmaps', [])
    return sorted(bitmaps, key=lambda bitmap: bitmap['name'])


def run_case(name, how, commands, prepared, bg_img, folder):
    for side in ('ours', 'theirs'):
        shutil.copytree(prepared, folder / side)
    for command in commands:
        ours = run(f'{bg_img} {command}', folder / 'ours')
        theirs = run(f'qemu-img {command}', folder / 'theirs')
        different = differs(how, ours, theirs)
        if different:
            failures.append(name)
            print(f'FAIL {name}: {command}: {different}')
            return
    for path in sorted((folder / 'ours').iterdir()):
        other = folder / 'theirs' / path.name
        if not other.exists() or path.name == 'small':
            continue
        if path.read_bytes()[:4] == b'QFI\xfb':
            result = run(f'qemu-img compare {path} {other}', folder)
            if bitmaps_of(path) != bitmaps_of(other):
                result = 1, bitmaps_of(path), bitmaps_of(other)
        else:
            result = run(f'cmp {path} {other}', folder)
        if result[0] != 0:
            failures.append(name)
            print(f'FAIL {name}: {path.name} is left different: {result}')


# What qemu-img adds for encryption, which is refused, and for the file below.
NOT_OURS = {'encryption', 'extent_size_hint', 'nocow'}


def compare_create_options(bg_img):
    """All that qemu-img can say of an image, bg-img can say by that name."""
    names = [set(re.findall(r'^ +([\w.-]+)=', run(
        f'{program} create -f qcow2 -o help x', '.')[1], re.MULTILINE))
        for program in ('qemu-img', bg_img)]
    missing = {n for n in names[0] - names[1] - NOT_OURS
               if not n.startswith('encrypt.')}
    if missing or 'compat' not in names[1]:
        failures.append('options')
        print(f'FAIL options of create: {sorted(missing)} missing')


BENCHES = ['-c 100', '-c 100 --no-drain', '-w -c 100 -d 4 --pattern=7 -s 512 -S 4096 -o 65536',
           '-w -c 64 -d 8 --flush-interval=16 -n -t none',
           '-w -c 64 -d 8 --flush-interval=16 --no-drain -t writethrough']


def run_bench(bg_img, prepared, folder):
    """The same words but for the time, and the same bytes written."""
    for number, bench in enumerate(BENCHES):
        said = []
        for program in (bg_img, 'qemu-img'):
            place = folder / f'bench{number}-{Path(program).name}'
            shutil.copytree(prepared, place)
            status, out, err = run(f'{program} bench -f raw {bench} raw',
                                   place)
            said.append((status, re.sub(r'\d+\.\d+', 'X', out), err,
                         (place / 'raw').read_bytes()))
        if said[0] != said[1]:
            failures.append('bench')
            print(f'FAIL bench {bench}: {said[0][:3]} {said[1][:3]}')


def main():
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        print('no qemu-img or qemu-io')
        return 77
    bg_img = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix='blockgraph-') as name:
        prepared = Path(name) / 'prepared'
        prepared.mkdir()
        if run(PREPARE, prepared)[0] != 0:
            print('qemu-img could not prepare images')
            return 1
        compare_create_options(bg_img)
        run_bench(bg_img, prepared, Path(name))
        for number, (case, how, commands) in enumerate(CASES):
            folder = Path(name) / str(number)
            folder.mkdir()
            run_case(case, how, commands, prepared, bg_img, folder)
            shutil.rmtree(folder)
    print(f'{len(CASES)} cases, {len(failures)} failed')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
