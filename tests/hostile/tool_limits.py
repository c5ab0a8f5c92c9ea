#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""R7: bg-img looks at images that lie, in processes that may use little.

    tool_limits.py BG_IMG

Each image is one of the hostile corpus.  "info" and "check" must end, by
themselves and in time, within the limits that a service should set before it
looks at an image of a stranger; where they fail they must say why, and none
may change the image.  Prints an upper bound of the memory that a process has
used (it begins as a copy of this interpreter, which counts, too).
"""
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAKE = Path(__file__).with_name('make-images.py')

EVERY = 30                      # of the corpus one case in so many
MEMORY_BYTES = 256 << 20
CPU_S = 5
WALL_S = 60
FILE_BYTES = 1 << 20            # neither has a reason to write

COMMANDS = [
    ['info', '-f', 'qcow2'],
    ['info', '-f', 'qcow2', '--output=json'],
    ['check', '-f', 'qcow2'],
]

# Statuses that mean something: done, failed, errors found, leaks found, no
# check for this format.
STATUSES = {0, 1, 2, 3, 63}


def is_sanitized(program):
    """Whether the shadow memory alone is larger than what we allow."""
    libraries = subprocess.run(['ldd', program], text=True,
                               capture_output=True, check=False).stdout
    return 'libasan' in libraries or 'libtsan' in libraries or \
        b'__asan_init' in Path(program).read_bytes() or \
        b'__tsan_init' in Path(program).read_bytes()


def set_limits(memory):
    def limits():
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    return limits


def r7_complaint(program, command, image, memory):
    """What is wrong with how @program takes @image; None if nothing is."""
    # An arena of the allocator for each thread would take the address space.
    environment = dict(os.environ, MALLOC_ARENA_MAX='1')
    try:
        done = subprocess.run([program, *command, image.name],
                              cwd=image.parent, capture_output=True,
                              env=environment, timeout=WALL_S, check=False,
                              stdin=subprocess.DEVNULL,
                              preexec_fn=set_limits(memory))
    except subprocess.TimeoutExpired:
        return f'not done after {WALL_S} s'
    if done.returncode not in STATUSES:
        return f'status {done.returncode}: {done.stderr[-400:]!r}'
    if done.returncode == 1 and not done.stderr.strip():
        return 'failed without a word'
    return None


def raw_text_complaints(program, folder):
    """What of a bitmap's name reaches the terminal as it is."""
    name = 'x\n\x1b]0;y\a\u009b2J\u202e'
    image = folder / 'names.img'
    for command in (['create', '-q', '-f', 'qcow2', image, '1M'],
                    ['bitmap', '--add', image, name]):
        subprocess.run([program, *command], check=True, timeout=WALL_S)
    shown = []
    for command in (['info', image], ['bitmap', '--add', image, name],
                    ['map', '-f', 'raw', image]):
        done = subprocess.run([program, *command], capture_output=True,
                              text=True, check=False, timeout=WALL_S)
        shown.append(done.stdout + done.stderr)
    text = ''.join(shown)
    raw = [c for c in '\x1b\a\u009b\u202e' if c in text]
    if raw or text.count('x\\x0a\\x1b]0;y\\x07') < 2:
        return [f'a name of an image is printed raw: {text!r}']
    return []


def main():
    program = str(Path(sys.argv[1]).resolve())
    memory = None if is_sanitized(program) else MEMORY_BYTES
    failures = []
    with tempfile.TemporaryDirectory(prefix='blockgraph-limits-') as name:
        folder = Path(name)
        subprocess.run([sys.executable, MAKE, '--expand', str(EVERY), folder],
                       check=True)
        images = sorted(p for p in folder.iterdir() if p.is_file())
        failures += raw_text_complaints(program, folder)
        start = time.monotonic()
        for image in images:
            content = image.read_bytes()
            for command in COMMANDS:
                wrong = r7_complaint(program, command, image, memory)
                if wrong:
                    failures.append(f'{command[0]} {image.name}: {wrong}')
            if image.read_bytes() != content:
                failures.append(f'{image.name}: has changed')
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f'{len(images)} images in {seconds:.1f} s, at most {peak} KiB')
    if not images:
        failures.append('no images')
    print('\n'.join(failures))
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
