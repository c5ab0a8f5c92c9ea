#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demonstration ends in order when it is interrupted in one of its phases.

    demo_interrupt.py DEMO_PY BG_DAEMON [TOOL...]

Phases begin with a line "== ...".  Afterwards there is no process left that was
started, and no trace of Python.  Exits with 77 where a program is missing.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PHASES = (1, 2, 3, 5)
SIGNALS = {signal.SIGINT: 1, signal.SIGTERM: 128 + signal.SIGTERM}


def processes_of(folder):
    """The command lines in which its name stands, but our own."""
    found = []
    for entry in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = entry.read_bytes().decode(errors='replace').split('\0')
        except OSError:
            continue
        if folder in ' '.join(words):
            found.append(words)
    return found


def interrupt(demo, tools, phase, number):
    with tempfile.TemporaryDirectory(prefix='demo it ') as folder:
        with subprocess.Popen([sys.executable, demo, tools, folder],
                              stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT,
                              start_new_session=True) as process:
            text = ''
            while text.count('\n== ') < phase:
                line = process.stdout.readline()
                assert line, text
                text += line
            os.killpg(process.pid, number)
            text += process.communicate(timeout=60)[0]
        assert process.returncode == SIGNALS[number], (process.returncode, text)
        assert 'Traceback' not in text, text
        assert not processes_of(folder), processes_of(folder)


def main():
    os.environ['PATH'] += ':/usr/sbin:/sbin'
    for tool in 'fio', 'nbdcopy', 'mke2fs', 'e2fsck', 'debugfs', 'qemu-img':
        if not shutil.which(tool):
            print(f'no {tool}')
            return 77
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tools = str(Path(sys.argv[2]).resolve().parent)
    for phase in PHASES:
        for number in SIGNALS:
            interrupt(sys.argv[1], tools, phase, number)
    return 0


if __name__ == '__main__':
    sys.exit(main())
