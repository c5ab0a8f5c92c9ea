#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the hostile corpus in a directory of its own, and run all of it.

    run.py HOSTILE_OPEN
"""
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAKE = Path(__file__).with_name('make-images.py')


def main():
    with tempfile.TemporaryDirectory(prefix='blockgraph-hostile-') as name:
        subprocess.run([sys.executable, MAKE, name], check=True)
        start = time.monotonic()
        result = subprocess.run([sys.argv[1], name], check=False)
        print(f'{time.monotonic() - start:.1f} s')
    return result.returncode


if __name__ == '__main__':
    sys.exit(main())
