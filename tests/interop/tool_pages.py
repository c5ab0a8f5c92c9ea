#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a tool can do is in its man page and its bash completion.

    tool_pages.py SOURCE-DIR TOOL...

Options and commands are those that the tool's --help lists.  And a text that
was asked for and cannot be written is an error, in each tool.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

# These are listed to say that they are refused.
REFUSED = {'bg-io': {'--copy-on-read', '--object'},
           'bg-nbd': {'--tls-authz', '--selinux-label'}}

failures = []


def text_of(*command):
    return subprocess.run(command, text=True, capture_output=True, timeout=60,
                          check=True).stdout


def long_options(text):
    return set(re.findall(r'(?<![\w-])--[a-z][a-z-]*[a-z]', text))


def check(tool, what, wanted, has):
    for word in sorted(wanted - has):
        failures.append(word)
        print(f'{tool}: {word} is not in {what}')


def check_tool(source, path):
    name = path.name
    text = text_of(path, '--help')
    options = long_options(text)
    commands = set(re.findall(r'^  ([a-z]+(?:-[a-z]+)*) +\S', text, re.M)
                   if 'Commands:' in text else [])
    if name == 'bg-img':
        commands -= {'fmt', 'cache', 'size', 'options', 'ofmt'}
    page = (source / 'docs' / 'man' / f'{name}.1').read_text()
    page = page.replace('\\-', '-')
    completion = (source / 'tools' / 'completion' / name).read_text()
    check(name, 'its man page', options, long_options(page))
    check(name, 'its completion', options - REFUSED.get(name, set()),
          long_options(completion))
    check(name, 'its man page', commands,
          set(re.findall(r'^\.B ([a-z-]+)', page, re.M)))
    check(name, 'its completion', commands,
          set(re.findall(r'[a-z]+(?:-[a-z]+)*', completion)))
    if name != 'bg-img':
        return
    for command in sorted(commands):
        usage = text_of(path, command, '--help')
        words = text_of('bash', '-c', f'source "{source}/tools/completion/'
                        f'bg-img"; _bg_img_words {command}; echo "$words"')
        check(f'{name} {command}', 'its completion',
              set(re.findall(r'(?<![\w-])-\w\b', usage)) |
              long_options(usage),
              {word.rstrip('=') for word in words.split()})


def check_full(path):
    """Whether all that only prints fails where nothing can be printed."""
    asked = {'bg-daemon': [['--print-manual'], ['--object', 'help']],
             'bg-img': [['info', '--object', 'secret,help']],
             'bg-io': [['-c', 'help']], 'bg-nbd': [['--object', 'help']],
             'bg-sim': [['list']]}
    asked = asked[path.name] + [['--help']]
    if path.name != 'bg-sim':
        asked.append(['--version'])
    for words in asked:
        with open('/dev/full', 'w', encoding='utf-8') as full:
            done = subprocess.run([path, *words], stdout=full, text=True,
                                  stderr=subprocess.PIPE, timeout=60,
                                  check=False)
        if done.returncode != 1 or 'standard output' not in done.stderr:
            failures.append(words)
            print(f'{path.name} {words}: {done.returncode} {done.stderr}')


def main():
    source = Path(sys.argv[1])
    for tool in sys.argv[2:]:
        path = Path(os.path.abspath(tool))
        check_tool(source, path)
        check_full(path)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
