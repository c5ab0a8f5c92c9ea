#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each command of bg-img with each option that there is, of any command.

    bg_img_options.py BG_IMG

It refuses those that qemu-img refuses, in the same words: an option that did
nothing would let a mistake pass.
"""
import shutil
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TIMEOUT_S = 60

COMMANDS = ('amend bench bitmap check commit compare convert create dd info map '
            'measure rebase resize snapshot').split()

OPTIONS = [f'--{word}' for word in (
    'add backing-chain bitmaps clear disable enable flush-interval=1 force '
    'force-share format=raw granularity=64k image-opts image-timeout=1 '
    'max-length=1 merge=x no-drain object=secret,id=x,data=y output=json '
    'pattern=1 preallocation=off remove repair=all salvage shrink size=1 '
    'skip-broken-bitmaps source-file=x source-format=raw start-offset=0 '
    'target-image-opts target-is-zero trace=x sal outp=json').split()] + [
        f'-{letter}' for letter in string.ascii_letters if letter not in 'hV']

# What only we have.
OURS = {(command, '--image-timeout=1') for command in COMMANDS} | {
    ('bench', '--object=secret,id=x,data=y'), ('snapshot', '-f')}


# Where qemu-img ends with a status of success, or one that means "they differ".
OTHER_STATUS = {'measure', 'compare'}


def answer(program, command, option):
    """An option without an argument, and no image: nothing is done."""
    words = [program, command, option]
    if command == 'resize':
        words.append('1M')      # what stands last is never an option
    done = subprocess.run(words, text=True, capture_output=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
    status = 'failed' if command in OTHER_STATUS else done.returncode
    if command == 'measure':    # the words of getopt
        for theirs, ours in (('invalid option', 'unrecognized option'),
                             ('requires an argument', 'missing argument')):
            done.stderr = done.stderr.replace(theirs, ours)
    for text in 'unrecognized option', 'missing argument':
        if text in done.stderr:
            words = (text if command == 'measure' else
                     done.stderr.replace('qemu-img', 'bg-img'))
            return status, words
    return status, 'taken'


def main():
    if not shutil.which('qemu-img'):
        print('no qemu-img')
        return 77
    bg_img = Path(sys.argv[1]).resolve()
    pairs = [(c, o) for c in COMMANDS for o in OPTIONS]
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        theirs = pool.map(lambda pair: answer('qemu-img', *pair), pairs)
        ours = pool.map(lambda pair: answer(bg_img, *pair), pairs)
        for pair, our, their in zip(pairs, ours, theirs):
            if our != their and pair not in OURS:
                failed += 1
                print('FAIL', *pair, our, their)
    print(f'{len(pairs)} commands, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
