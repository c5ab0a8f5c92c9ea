#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same control commands to bg-daemon and to qemu-storage-daemon.

    qmp_compare.py BG_DAEMON [SCENARIO...]

The replies and events of the scenarios in qmp_scenarios.py are compared field
by field.  What differs and may is listed in qmp-differences.txt, a line each:

    COMMAND PATH   reason

COMMAND and PATH are patterns of a shell; the path of a field is its names with
a dot between them, elements of lists by their node-name if they have one.  A
line that fits nothing is an error as well.  Exit status 77: no qemu-storage-daemon.
"""
import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from qmp_client import Daemon
from qmp_scenarios import SCENARIOS

HERE = Path(__file__).parent
MISSING = '(nothing)'

# What no two runs have in common.
VOLATILE = {'timestamp', 'date-sec', 'date-nsec', 'vm-clock-sec',
            'vm-clock-nsec', 'actual-size', 'busy'}
UNORDERED = {'perm', 'shared-perm'}


def make_images(folder):
    def must(*command):
        subprocess.run(command, cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)
    for name in ('a', 'b', 'mid'):
        must('qemu-img', 'create', '-q', '-f', 'qcow2', f'{name}.qcow2', '1M')
    must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'mid.qcow2', '-F',
         'qcow2', 'top.qcow2')
    must('qemu-img', 'create', '-q', '-f', 'raw', 'raw.img', '1M')
    must('qemu-io', '-c', 'write -P 1 0 64k', 'a.qcow2')
    must('qemu-io', '-c', 'write -P 2 64k 64k', 'mid.qcow2')
    must('qemu-io', '-c', 'write -P 3 128k 64k', 'top.qcow2')


def normal_graph(graph):
    """Edges by the names of their nodes: the numbers are anybody's."""
    # Users of nodes have the names of devices, or what says more.
    names = {node['id']: '' if node['type'] == 'block-backend'
             else node['name'] for node in graph['nodes']}
    return {'nodes': sorted(names.values()),
            'edges': sorted(
                ({**edge, 'parent': names[edge['parent']],
                  'child': names[edge['child']],
                  'perm': sorted(edge['perm']),
                  'shared-perm': sorted(edge['shared-perm'])}
                 for edge in graph['edges']),
                key=lambda edge: json.dumps(edge, sort_keys=True))}


def normal(value, folder):
    """Without what differs from run to run, lists of nodes by name."""
    if isinstance(value, dict):
        if set(value) == {'nodes', 'edges'}:
            value = normal_graph(value)
        return {key: normal(inner, folder) for key, inner in value.items()
                if key not in VOLATILE}
    if isinstance(value, list):
        items = [normal(inner, folder) for inner in value]
        if items and isinstance(items[0], dict) and (
                'node-name' in items[0] or 'name' in items[0]):
            items.sort(key=lambda i: (str(i.get('node-name', i.get('name'))),
                                      str(i.get('id'))))
        return items
    if isinstance(value, str):
        # Names that were made up have any number.
        return re.sub('^#block[0-9]+$', '#block',
                      value.replace(str(folder), '.'))
    return value


def without_drains(told):
    """Without the moments in which a job waits for a drain: whether there are
    any is the business of the graph."""
    result = []
    for event in told:
        if event[1].get('status') == 'running' and result and \
                result[-1][1] == {**event[1], 'status': 'paused'}:
            result.pop()
            if result and result[-1] == event:
                continue
        result.append(event)
    return result


def run_step(client, step, folder):
    """What a step shows: its name, and what is compared."""
    if isinstance(step, str):
        client.send(step.encode('latin-1'))
        client.send(b'\n')
        # An error may make several of one text: what follows is the mark.
        client.send(b'\xff{"execute":"query-jobs","id":"mark"}\n')
        replies = []
        while not replies or replies[-1].get('id') != 'mark':
            replies.append(client.reply())
        return 'text', {'first': normal(replies[0], folder),
                        'several': len(replies) > 1}
    if isinstance(step, dict):
        return step['execute'], normal(client.ask_json(step), folder)
    if step[0] == 'command':
        reply = client.ask_json({'execute': step[1], 'arguments': step[2]})
        if 'error' in reply:
            # Whether a job was there for a moment is not for others to see.
            client.events.clear()
        return step[1], normal(reply, folder)
    last = client.wait_event(step[1], **step[2])
    told, client.events = client.events + [last], []
    return 'events', normal(without_drains(
        [[event['event'], event.get('data', {})] for event in told]), folder)


def run(command, steps):
    """All that a daemon shows of a scenario."""
    with tempfile.TemporaryDirectory() as folder:
        make_images(folder)
        daemon = Daemon(command, folder)
        try:
            client = daemon.client()
            seen = [run_step(client, step, folder) for step in steps]
            client.ask('quit')
            client.close()
            seen.append(('exit', daemon.end()))
        finally:
            daemon.kill()
        return seen


def differences(ours, theirs, path=''):
    """Each a path and both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            inner = f'{path}.{key}' if path else key
            yield from differences(ours.get(key, MISSING),
                                   theirs.get(key, MISSING), inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and \
            len(ours) == len(theirs):
        for one, other in zip(ours, theirs):
            name = one.get('node-name', '') if isinstance(one, dict) else ''
            yield from differences(one, other,
                                   f'{path}.{name}' if name else f'{path}.')
    elif ours != theirs:
        yield path, ours, theirs


def schema_differences(commands):
    """Members of the arguments and replies of commands that both have."""
    def members(schema, name):
        entry = schema.get(name, {})
        found = {member['name'] for member in entry.get('members', [])
                 if isinstance(member, dict) and 'name' in member}
        if entry.get('meta-type') == 'array':
            found |= members(schema, entry['element-type'])
        return found

    ours, theirs = commands
    for name in sorted(set(ours) & set(theirs)):
        if ours[name]['meta-type'] not in ('command', 'event') or \
                theirs[name]['meta-type'] != ours[name]['meta-type']:
            continue
        for kind in ('arg-type', 'ret-type'):
            if kind not in ours[name]:
                continue
            mine = members(ours, ours[name][kind])
            other = members(theirs, theirs[name].get(kind))
            for member in sorted(mine ^ other):
                yield (name, f'schema.{kind}.{member}',
                       member if member in mine else MISSING,
                       member if member in other else MISSING)


def schema_of(command):
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(command, folder)
        try:
            client = daemon.client()
            schema = client.must('query-qmp-schema')
            client.ask('quit')
            client.close()
            daemon.end()
        finally:
            daemon.kill()
    return {entry['name']: entry for entry in schema}


def all_differences(bg_daemon, names):
    commands = [[bg_daemon], ['qemu-storage-daemon']]
    for name in names or SCENARIOS:
        seen = [run(command, SCENARIOS[name]) for command in commands]
        for (step, ours), (_, theirs) in zip(*seen):
            for path, one, other in differences(ours, theirs):
                yield step, path, one, other, name
    if not names:
        for found in schema_differences([schema_of(c) for c in commands]):
            yield *found, 'schema'


def read_allowed():
    allowed = []
    for line in (HERE / 'qmp-differences.txt').read_text().splitlines():
        if line.strip() and not line.startswith('#'):
            command, path, reason = line.split(None, 2)
            allowed.append({'command': command, 'path': path,
                            'reason': reason, 'used': False})
    return allowed


def fits(entry, command, path):
    return (fnmatch.fnmatchcase(command, entry['command']) and
            fnmatch.fnmatchcase(path, entry['path']))


def main():
    bg_daemon = str(Path(sys.argv[1]).resolve())
    names = sys.argv[2:]
    if not shutil.which('qemu-storage-daemon') or not shutil.which('qemu-img'):
        print('no qemu-storage-daemon')
        return 77
    allowed = read_allowed()
    bad = 0
    for command, path, ours, theirs, name in all_differences(bg_daemon,
                                                             names):
        for entry in allowed:
            if fits(entry, command, path):
                entry['used'] = True
                break
        else:
            bad += 1
            print(f'{name}: {command} {path}\n  ours:   {ours}\n'
                  f'  theirs: {theirs}')
    for entry in allowed:
        if not entry['used'] and not names:
            bad += 1
            print(f"qmp-differences.txt: {entry['command']} {entry['path']} "
                  'fits nothing')
    print(f'{bad} differences that are not listed')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
