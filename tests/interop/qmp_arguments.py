#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Wrong arguments of every command, to bg-daemon and to qemu-storage-daemon.

    qmp_arguments.py BG_DAEMON

What is sent comes out of the schemas: each argument that both daemons have, at
any depth, is left out where it must be given, and is given with values of
other types; and there is one argument that no command has.  Compared is
whether the command is refused, and the class of the error; the reply must
have the id of the request.  Exit status 77: no qemu-storage-daemon.
"""
import shutil
import sys
import tempfile
from pathlib import Path

from qmp_client import Daemon
from qmp_compare import schema_of

# Not asked: what ends the daemon or the negotiation.
LEFT_OUT = {'quit', 'qmp_capabilities'}
DEPTH_MAX = 3

WRONG = {
    'string': [5, None, {}],
    'int': ['x', 1.5, True, None, 2 ** 63, -2 ** 63 - 1, []],
    'boolean': ['on', 1, None],
    'number': ['x', None],
    'enum': ['nope', 5, '', None],
    'array': [5, {}, None, [[[]]]],
    'object': [5, 'x', [], None],
    'alternate': [[], 1.5],
}
RIGHT = {'string': 'x', 'int': 1, 'boolean': True, 'number': 1.5}

# Where the answers differ and may: a command, what is wrong, and the reason.
ACCEPTED = {
    ('blockdev-create', f'.options:file.size={2 ** 63}'):
        'no file is so long: refused by the command, not by the job',
    ('blockdev-create', '.options:qcow2.size is missing'):
        'there may be a backing file, whose length is taken',
    ('object-add', ':throttle-group.limits=None'):
        'null for an object that may be left out: it is left out',
}


class Schema:
    def __init__(self, entries):
        self.entries = entries

    def kind(self, name):
        entry = self.entries[name]
        return (entry['json-type'] if entry['meta-type'] == 'builtin'
                else entry['meta-type'])

    def members(self, name, case=None):
        """By their names, those of the variant @case with them."""
        entry = self.entries[name]
        found = {m['name']: m for m in entry.get('members', [])}
        for variant in entry.get('variants', []):
            if variant['case'] == case:
                found.update(self.members(variant['type']))
        return found

    def cases(self, name):
        return {v['case'] for v in self.entries[name].get('variants', [])}


class Walk:
    """Values with one mistake each, made for a type that both sides have."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs

    def right(self, name):
        """A value that is of the type, which is all that can be said."""
        entry, kind = self.theirs.entries[name], self.theirs.kind(name)
        if kind == 'enum':
            return entry['values'][0]
        if kind == 'array':
            return []
        if kind == 'alternate':
            types = [m['type'] for m in entry['members']]
            return self.right('str' if 'str' in types else types[0])
        if kind == 'object':
            return self.right_object(name, min(
                self.theirs.cases(name), default=None,
                key=lambda case: (len(self.needed(name, case)), case)))
        return RIGHT.get(kind)

    def needed(self, name, case):
        return {key: m['type']
                for key, m in self.theirs.members(name, case).items()
                if 'default' not in m}

    def right_object(self, name, case):
        value = {key: self.right(kind)
                 for key, kind in self.needed(name, case).items()}
        if case:
            value[self.theirs.entries[name]['tag']] = case
        return value

    def wrong(self, mine, other, depth):
        """Pairs of what is wrong and the value."""
        kind = self.theirs.kind(other)
        for value in WRONG.get(kind, []):
            yield f'={value!r}', value
        if depth >= DEPTH_MAX or kind != self.ours.kind(mine):
            return
        if kind == 'object':
            yield from self.wrong_objects(mine, other, depth)
        elif kind == 'array':
            for what, value in self.wrong(
                    self.ours.entries[mine]['element-type'],
                    self.theirs.entries[other]['element-type'], depth + 1):
                yield f'[0]{what}', [value]
        elif kind == 'alternate' and self.is_small(other):
            for one in self.theirs.entries[other]['members']:
                for two in self.ours.entries[mine]['members']:
                    if (self.theirs.kind(one['type']) == 'object' and
                            self.ours.kind(two['type']) == 'object'):
                        yield from self.wrong_objects(two['type'],
                                                      one['type'], depth)

    def is_small(self, name):
        """Nodes in nodes have no end, and are all of one type."""
        return not any(self.theirs.entries[m['type']].get('variants')
                       for m in self.theirs.entries[name]['members'])

    def wrong_objects(self, mine, other, depth):
        entry = self.theirs.entries[other]
        cases = self.ours.cases(mine) & self.theirs.cases(other)
        for case in sorted(cases) or [None]:
            known = self.ours.members(mine, case)
            label = f':{case}' if case else ''
            base = self.right_object(other, case)
            yield f'{label}.nope=1', {**base, 'nope': 1}
            for key, member in self.theirs.members(other, case).items():
                if key not in known or key == entry.get('tag'):
                    continue
                if 'default' not in member:
                    yield f'{label}.{key} is missing', {
                        k: v for k, v in base.items() if k != key}
                for what, value in self.wrong(known[key]['type'],
                                              member['type'], depth + 1):
                    yield f'{label}.{key}{what}', {**base, key: value}

    def requests(self):
        ours, theirs = self.ours.entries, self.theirs.entries
        for name in sorted(set(ours) & set(theirs) - LEFT_OUT):
            if ours[name]['meta-type'] == 'command':
                for what, value in self.wrong_objects(
                        ours[name]['arg-type'], theirs[name]['arg-type'], 0):
                    yield name, what, value


def outcome(client, number, name, arguments):
    reply = client.ask_json({'execute': name, 'arguments': arguments,
                             'id': number})
    if reply.get('id') != number:
        return f'a reply without its id: {reply}', ''
    if 'error' in reply:
        return reply['error']['class'], reply['error']['desc']
    return 'done', ''


def outcomes(command, requests):
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(command, folder)
        try:
            client = daemon.client()
            return [outcome(client, number, name, arguments)
                    for number, (name, _, arguments) in enumerate(requests)]
        finally:
            daemon.kill()


def main():
    bg_daemon = str(Path(sys.argv[1]).resolve())
    if not shutil.which('qemu-storage-daemon'):
        print('no qemu-storage-daemon')
        return 77
    commands = [bg_daemon], ['qemu-storage-daemon']
    requests = list(Walk(*[Schema(schema_of(c)) for c in commands]).requests())
    bad = 0
    not_seen = set(ACCEPTED)
    for (name, what, _), ours, theirs in zip(
            requests, *[outcomes(c, requests) for c in commands]):
        if ours[0] == theirs[0]:
            continue
        if (name, what) in ACCEPTED:
            not_seen.discard((name, what))
        else:
            bad += 1
            print(f'{name} {what}\n  ours:   {ours}\n  theirs: {theirs}')
    for name, what in not_seen:
        bad += 1
        print(f'{name} {what}: accepted, but there is no difference')
    print(f'{len(requests)} requests, {bad} differences')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
