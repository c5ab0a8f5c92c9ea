#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bg-daemon as a process.

    bg_daemon.py BG_DAEMON

Its command line, its end by signals and by "quit", the background, the file of
its id, its control sockets with clients that behave badly, and the commands of
bg-io on running nodes.
"""
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from qmp_client import (TIMEOUT_S, Client, Daemon, wait_for_end,
                        wait_for_file)

MIB = 1 << 20
BLOCKDEV = ['--blockdev', 'null-co,node-name=n,size=1M,read-zeroes=on']

program = str(Path(sys.argv[1]).resolve())
tests = []


def test(function):
    tests.append(function)
    return function


def check(condition, *what):
    if not condition:
        raise AssertionError(' '.join(map(str, what)))


def run(folder, *options):
    """Status, output and errors of a daemon that ends by itself."""
    done = subprocess.run([program, *options], cwd=folder, text=True,
                          timeout=TIMEOUT_S, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


def hmp(client, line):
    return client.must('human-monitor-command', command_line=line)


@test
def options_are_done_in_order_and_errors_begin_with_the_name(folder):
    link = Path(folder) / 'my-daemon'
    link.symlink_to(program)
    for options, text in (
            (['--nope'], "unrecognized option '--nope'"),
            (['word'], 'Unexpected argument: word'),
            (['--blockdev', 'raw,node-name=r,file=n', *BLOCKDEV], "'n'"),
            (['--blockdev', 'null-co'], "'node-name' must be specified"),
            (['--blockdev', '{'], '--blockdev'),
            (['--monitor', 'x'], "no chardev 'x'"),
            (['--chardev', 'stdio,id=x,path=p'], 'only sockets'),
            (['--object', 'nope,id=x'], "'nope'"),
            (['--object', 'nope,help'], 'invalid object type: nope'),
            (['--object', 'iothread,id='], "'id' expects"),
            (['--object', 'secret,id=x,data=top-secret,foo=1'],
             "a comma in a value is written twice"),
            (['--object', 'secret,id=x,data=a,top-secret=1'], "'x'"),
            (['--object', 'secret,id=x,data=a,format=top-secret'], "'x'"),
            (['--object', 'secret,id=x,data=a,top-secret'],
             'column 20'),
            (['--object', '{"qom-type":"secret","id":"x","data":"top-secret}'],
             'not well formed'),
            (['--object', '{"qom-type":"secret","id":"x","data":top-secret}'],
             'not well formed'),
            (['--object', '{"qom-type":"secret","id":"x","data":["top-secret"]}'],
             "'data' expects a string"),
            (['--object', 'secret,id=x,data.a=top-secret'],
             "'data' expects a string"),
            (['--chardev', 'socket,id=,path=p'], "'id' expects"),
            (['--nbd-server', 'addr.type=inet,addr.host=localhost,'
              'addr.port=99999'], "'99999' is no port"),
            (['--pidfile', 'no/such/folder', *BLOCKDEV], 'PID file')):
        done = subprocess.run([str(link), *options], cwd=folder, text=True,
                              capture_output=True, timeout=TIMEOUT_S,
                              check=False)
        check(done.returncode == 1, options, done.returncode)
        check(text in done.stderr, options, done.stderr)
        check(done.stderr.startswith('my-daemon: '), options, done.stderr)
        check('top-secret' not in done.stderr, done.stderr)


@test
def files_that_images_name_may_be_refused_or_kept_in_a_directory(folder):
    for name in 'sub', 'other':
        (Path(folder) / name).mkdir()
    for options in (['other/base', '1M'],
                    ['-b', '../other/base', '-F', 'qcow2', 'sub/top']):
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', *options],
                       cwd=folder, check=True)
    top = ['--blockdev', 'qcow2,node-name=t,file.driver=file,'
           'file.filename=sub/top']
    for options, text in (
            ([*top, '--untrusted'], "'../other/base', which it names as its "
                                    "backing file, is not opened"),
            (['--image-root', 'sub', *top], "is not beneath directory '"),
            (['--image-timeout', 'soon', *top], "--image-timeout: 'soon' is no "
                                                "number of seconds"),
            (['--image-root', 'none', *top], "--image-root: Could not open "
                                             "directory 'none'")):
        status, _, err = run(folder, *options)
        check(status == 1 and text in err, options, status, err)
    base = 'null-co,node-name=b,size=1M,read-only=on'
    for options in (['--blockdev', base, '--untrusted', '--blockdev',
                     top[1] + ',backing=b'],
                    [*top, '--image-root', '.', '--image-timeout', '60']):
        daemon = Daemon([program], folder, *options)
        try:
            client = daemon.client()
            nodes = client.must('query-named-block-nodes', flat=True)
            check('t' in {n['node-name'] for n in nodes}, nodes)
            client.must('quit')
            check(daemon.end() == 0)
        finally:
            daemon.kill()


@test
def a_chardev_without_a_monitor_is_told(folder):
    status, _, err = run(folder, '--chardev', 'socket,id=lonely,path=l.sock,'
                         'server=on', '--pidfile', 'nowhere/pid')
    check(status == 1 and "--chardev 'lonely' is used by no --monitor" in err,
          status, err)
    daemon = Daemon([program], folder, stderr=subprocess.PIPE)
    try:
        daemon.client().must('quit')
        check(daemon.end() == 0 and daemon.process.stderr.read() == b'')
    finally:
        daemon.kill()


@test
def the_time_to_open_an_image_is_limited(folder):
    """A server that is not there, however long one may try to open it."""
    node = 'nbd,node-name=n,path=nowhere,open-timeout=86400'
    status, _, err = run(folder, '--image-timeout', '1', '--blockdev', node)
    check(status == 1 and "'nbd:unix:nowhere:' takes longer to open" in err,
          status, err)
    daemon = Daemon([program], folder, '--image-timeout', '1')
    try:
        client = daemon.client()
        reply = client.ask('blockdev-add', driver='nbd', path='nowhere',
                           node_name='n', open_timeout=86400)
        check('takes longer to open' in reply.get('error', {}).get('desc', ''),
              reply)
        client.must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def help_and_version_are_printed(folder):
    status, out, _ = run(folder, '--help')
    check(status == 0 and '--blockdev' in out, out)
    status, out, _ = run(folder, '--version')
    check(status == 0 and out.startswith('bg-daemon version '), out)


@test
def the_tools_tell_what_objects_there_are(folder):
    for tool in ['bg-daemon'], ['bg-img', 'info'], ['bg-io'], ['bg-nbd']:
        tool = [str(Path(program).parent / tool[0]), *tool[1:]]
        types = subprocess.run([*tool, '--object', 'help'], text=True,
                               capture_output=True, check=True)
        check('\n  iothread\n' in types.stdout, tool, types.stdout)
        options = subprocess.run([*tool, '--object', 'secret,id=s,help'],
                                 text=True, capture_output=True, check=True)
        check('  format=<string>' in options.stdout, tool, options.stdout)


@test
def the_manual_is_that_of_the_commands(folder):
    status, out, _ = run(folder, '--print-manual')
    manual = Path(__file__).parents[2] / 'docs' / 'qmp.md'
    check(status == 0)
    check(out == manual.read_text(), 'write docs/qmp.md anew: bg-daemon '
          '--print-manual')


@test
def the_command_line_makes_what_commands_make(folder):
    daemon = Daemon([program], folder, '--object', 'iothread,id=io',
                    '--object', 'throttle-group,id=g,limits.bps-total=1000000',
                    *BLOCKDEV, '--blockdev',
                    'throttle,node-name=t,throttle-group=g,file=n',
                    '--blockdev', json.dumps(
                        {'driver': 'raw', 'node-name': 'r', 'file': 't'}))
    try:
        client = daemon.client()
        nodes = client.must('query-named-block-nodes', flat=True)
        check({'n', 't', 'r'} == {n['node-name'] for n in nodes}, nodes)
        client.must('blockdev-del', node_name='r')
        check('error' in client.ask('object-del', id='g'))
        client.must('object-del', id='io')
        client.must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def signals_end_it_with_an_event_and_status_0(folder):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        daemon = Daemon([program], folder, *BLOCKDEV)
        try:
            client = daemon.client()
            daemon.process.send_signal(number)
            event = client.wait_event('SHUTDOWN')
            check(event['data'] == {'guest': False, 'reason': 'host-signal'})
            check(daemon.end() == 0)
            check(not daemon.path.exists())
        finally:
            daemon.kill()


@test
def a_second_signal_ends_it_whatever_it_waits_for(folder):
    daemon = Daemon([program], folder, '--blockdev', 'null-co,node-name=n,'
                    'size=1M,latency-ns=3600000000000')
    try:
        client = daemon.client()
        hmp(client, 'qemu-io n "aio_read 0 512"')
        daemon.process.send_signal(signal.SIGTERM)
        client.wait_event('SHUTDOWN')
        daemon.process.send_signal(signal.SIGTERM)
        check(daemon.end() == 1)
        check(not (Path(folder) / 'qmp.pid').exists())
    finally:
        daemon.kill()


@test
def what_cannot_be_written_at_the_end_is_told_and_the_status_is_1(folder):
    with open(Path(folder) / 'errors', 'w', encoding='utf-8') as errors:
        daemon = Daemon([program], folder, *BLOCKDEV, '--blockdev',
                        'blkdebug,node-name=b,image=n,'
                        'inject-error.0.event=flush_to_disk,'
                        'inject-error.0.errno=5', stderr=errors)
        try:
            client = daemon.client()
            hmp(client, 'qemu-io b "write 0 512"')
            client.must('quit')
            check(daemon.end() == 1)
        finally:
            daemon.kill()
    text = (Path(folder) / 'errors').read_text(encoding='utf-8')
    check("Node 'b': could not write what was in memory: Input/output error"
          in text, text)


@test
def a_bitmap_that_cannot_be_stored_at_the_end_is_told_and_the_status_is_1(
        folder):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', 'd.qcow2',
                    '1M'], cwd=folder, check=True)
    with open(Path(folder) / 'errors', 'w', encoding='utf-8') as errors:
        daemon = Daemon([program], folder, '--blockdev',
                        'qcow2,node-name=d,file.driver=blkdebug,'
                        'file.image.driver=file,'
                        'file.image.filename=d.qcow2,'
                        'file.inject-error.0.event=write_aio,'
                        'file.inject-error.0.errno=28', stderr=errors)
        try:
            client = daemon.client()
            client.must('block-dirty-bitmap-add', node='d', name='b',
                        persistent=True)
            client.must('quit')
            check(daemon.end() == 1)
        finally:
            daemon.kill()
    text = (Path(folder) / 'errors').read_text(encoding='utf-8')
    check("could not store bitmap 'b'" in text, text)


@test
def quit_is_answered_and_cancels_jobs_and_stores_what_was_written(folder):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', 'd.qcow2',
                    '1M'], cwd=folder, check=True)
    daemon = Daemon([program], folder, *BLOCKDEV, '--blockdev',
                    'qcow2,node-name=d,file.driver=file,'
                    'file.filename=d.qcow2', stdout=subprocess.DEVNULL)
    try:
        client = daemon.client()
        hmp(client, 'qemu-io d "write -P 7 0 64k"')
        client.must('block-dirty-bitmap-add', node='d', name='b',
                    persistent=True)
        client.must('blockdev-backup', device='d', target='n', sync='none',
                    job_id='j')
        client.must('quit')
        client.wait_event('SHUTDOWN', reason='host-qmp-quit')
        client.wait_event('BLOCK_JOB_CANCELLED', device='j')
        check(daemon.end() == 0)
    finally:
        daemon.kill()
    done = subprocess.run(['qemu-io', '-c', 'read -P 7 0 64k', 'd.qcow2'],
                          cwd=folder, check=True, capture_output=True)
    check(b'failed' not in done.stdout, done.stdout)
    info = json.loads(subprocess.run(
        ['qemu-img', 'info', '--output=json', 'd.qcow2'], cwd=folder,
        check=True, capture_output=True).stdout)
    bitmaps = info['format-specific']['data']['bitmaps']
    check([b['name'] for b in bitmaps] == ['b'], bitmaps)


@test
def in_the_background_it_is_ready_when_the_start_returns(folder):
    status, _, err = run(folder, '--daemonize', '--pidfile', 'pid', *BLOCKDEV,
                         '--chardev', 'socket,id=c,path=qmp.sock,server=on',
                         '--monitor', 'c')
    check(status == 0, err)
    pid = int((Path(folder) / 'pid').read_text())
    client = Client(Path(folder) / 'qmp.sock')
    client.must('quit')
    check(wait_for_end(pid), 'it does not end')
    check(not (Path(folder) / 'pid').exists())
    status, _, err = run(folder, '--daemonize', '--blockdev', 'nope,node-name=x')
    check(status == 1 and 'nope' in err, status, err)


@test
def a_control_socket_is_for_its_user_alone_and_stale_ones_go(folder):
    path = Path(folder) / 'qmp.sock'
    stale = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    stale.bind('qmp.sock')
    stale.close()
    old = os.umask(0)
    options = ['--chardev', 'socket,id=c,path=qmp.sock,server=on',
               '--monitor', 'c']
    daemon = subprocess.Popen([program, *options, '--pidfile', 'pid'],
                              cwd=folder)
    os.umask(old)
    try:
        wait_for_file(daemon, Path(folder) / 'pid')
        client = Client(path)
        check(stat.S_IMODE(path.stat().st_mode) == 0o600)
        status, _, err = run(folder, *options)
        check(status == 1 and 'in use' in err, err)
        path.unlink()
        path.write_text('not a socket')
        status, _, err = run(folder, *options)
        check(status == 1, err)
        client.must('quit')
        check(daemon.wait(TIMEOUT_S) == 0)
        check(path.read_text() == 'not a socket')
    finally:
        daemon.kill()
        os.chdir('/')


class PrettyClient(Client):
    """One whose messages are of many lines, up to one that is '}' alone."""

    def receive(self):
        while b'\n}\r\n' not in self.data:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.data += more
        text, self.data = self.data.split(b'\n}\r\n', 1)
        self.last = text.decode() + '\n}'
        return json.loads(self.last)


@test
def pretty_monitors_get_their_lines_indented(folder):
    options = ['--chardev', 'socket,id=p,path=pretty.sock,server=on',
               '--monitor', 'p,pretty=on']
    daemon = Daemon([program], folder, *BLOCKDEV, *options)
    try:
        pretty = PrettyClient(Path(folder) / 'pretty.sock')
        check(pretty.last == '{\n    "return": {}\n}', pretty.last)
        nodes = pretty.must('query-named-block-nodes', flat=True)
        check(nodes[0]['node-name'] == 'n', nodes)
        check('\n            "node-name": "n"' in pretty.last, pretty.last)
        plain = daemon.client()
        plain.must('quit')
        check(pretty.wait_event('SHUTDOWN')['data']['guest'] is False)
        check('\n    "event": "SHUTDOWN"' in pretty.last, pretty.last)
        plain.wait_event('SHUTDOWN')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


def free_port():
    """A port that nobody has, so far."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


@test
def control_over_tcp_is_for_this_machine_unless_told_otherwise(folder):
    port = free_port()
    tcp = f'socket,id=t,host=localhost,port={port},server=on,wait=off,ipv4=on'
    daemon = Daemon([program], folder, *BLOCKDEV, '--chardev', tcp,
                    '--monitor', 't')
    try:
        client = Client(('127.0.0.1', port))
        other = Client(('127.0.0.1', port))
        check(client.must('query-jobs') == other.must('query-jobs') == [])
        status, _, err = run(folder, '--chardev', tcp, '--monitor', 't')
        check(status == 1 and f"'localhost:{port}'" in err and 'in use' in err,
              err)
        # What a browser would send is not looked through for commands.
        with socket.create_connection(('127.0.0.1', port), TIMEOUT_S) as http:
            http.sendall(b'POST / HTTP/1.1\r\n\r\n'
                         b'{"execute":"qmp_capabilities"}'
                         b'{"execute":"quit"}\r\n')
            answer = b''
            while more := http.recv(65536):
                answer += more
            check(b'"return"' not in answer, answer)
        client.must('quit')
        other.wait_event('SHUTDOWN', reason='host-qmp-quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()
    for options, text in (
            (f'host=0.0.0.0,port={port}', 'plain-text=on'),
            ('host=localhost', 'a host and a port'),
            (f'path=x,host=localhost,port={port}', 'a host and a port'),
            ('path=x,ipv4=on', 'the options of TCP'),
            (f'host=::1,port={port},ipv6=off', 'Could not find host'),
            (f'host=::1,port={port},ipv4=off,ipv6=off', 'Cannot disable')):
        status, _, err = run(folder, '--chardev',
                             f'socket,id=t,{options},server=on', '--monitor',
                             't')
        check(status == 1 and text in err, options, err)


@test
def a_daemon_connects_to_who_waits_for_it(folder):
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(TIMEOUT_S)
        port = server.getsockname()[1]
        daemon = subprocess.Popen(
            [program, '--chardev', f'socket,id=t,host=127.0.0.1,port={port}',
             '--monitor', 't'], cwd=folder)
        try:
            connection, _ = server.accept()
            with connection, connection.makefile('rw') as stream:
                check('QMP' in json.loads(stream.readline()))
                stream.write('{"execute":"qmp_capabilities"}'
                             '{"execute":"quit"}')
                stream.flush()
                check('return' in json.loads(stream.readline()))
                check('return' in json.loads(stream.readline()))
            check(daemon.wait(TIMEOUT_S) == 0)
        finally:
            daemon.kill()
            daemon.wait()
    status, _, err = run(folder, '--chardev',
                         f'socket,id=t,host=127.0.0.1,port={port}',
                         '--monitor', 't')
    check(status == 1 and 'Connection refused' in err, err)


@test
def several_clients_do_not_wait_for_each_other(folder):
    daemon = Daemon([program], folder, *BLOCKDEV)
    try:
        clients = [daemon.client() for _ in range(8)]
        deaf = daemon.client()
        deaf.socket.setblocking(False)
        try:
            while True:
                deaf.send('{"execute":"query-qmp-schema"}')
        except BlockingIOError:
            pass        # it is not read from any more
        half = daemon.client()
        half.send('{"execute":"query-')
        for client in clients:
            client.must('query-jobs')
        clients[0].must('blockdev-create', job_id='c', options={
            'driver': 'file', 'filename': 'x', 'size': 0})
        for client in clients:
            client.wait_event('JOB_STATUS_CHANGE', status='concluded')
        clients[0].must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def bad_input_is_refused_and_the_connection_stays(folder):
    daemon = Daemon([program], folder, *BLOCKDEV)
    try:
        client = daemon.client()
        for text in (b'{"execute":', b'\xff', b'[' * 100000 + b'\n',
                     b'"' + b'x' * (5 * MIB) + b'"\n',
                     b'{"a":' * 100 + b'1' + b'}' * 100 + b'\n',
                     b'[' + b'1,' * 300000 + b'1]\n',
                     b'\x00\x01\xfe garbage }{][ \n'):
            client.send(text)
        client.send(b'\xff\n')
        client.send(b'{"execute":"query-jobs","id":"end"}\n')
        while client.reply().get('id') != 'end':
            pass
        rss = int(Path(f'/proc/{daemon.process.pid}/statm').read_text()
                  .split()[1]) * 4096
        check(rss < 200 * MIB, 'resident bytes', rss)
        client.must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def commands_that_come_before_the_end_of_input_are_answered(folder):
    daemon = Daemon([program], folder, *BLOCKDEV)
    try:
        client = daemon.client()
        client.send('{"execute":"query-jobs"}' * 50)
        client.socket.shutdown(socket.SHUT_WR)
        for _ in range(50):
            check('return' in client.reply())
        try:
            client.receive()
            check(False, 'the connection is open')
        except EOFError:
            pass
        daemon.client().must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def clients_of_exports_come_and_go_with_them(folder):
    uri = f'nbd+unix:///disk?socket={folder}/nbd.sock'
    daemon = Daemon([program], folder, '--object', 'iothread,id=io',
                    '--nbd-server', 'addr.type=unix,addr.path=nbd.sock',
                    *BLOCKDEV, '--export',
                    'nbd,id=e,node-name=n,name=disk,iothread=io')

    def qemu_io(command, *flags):
        done = subprocess.run(['qemu-io', *flags, '-f', 'raw', '-c', command,
                               uri],
                              text=True, capture_output=True, check=False,
                              timeout=TIMEOUT_S)
        return done.returncode, done.stdout + done.stderr

    try:
        client = daemon.client()
        status, out = qemu_io('read -P 0 0 1M', '-r')
        check(status == 0 and 'failed' not in out, out)
        status, out = qemu_io('write 0 4k')
        check(status != 0 or 'failed' in out, 'written to read-only', out)
        check('in use' in client.ask('object-del', id='io')['error']['desc'])
        # The end of the last client may not have been noticed yet.
        client.must('block-export-del', id='e', mode='hard')
        client.wait_event('BLOCK_EXPORT_DELETED', id='e')
        client.must('object-del', id='io')
        client.must('block-export-add', type='nbd', id='w', node_name='n',
                    name='disk', writable=True)
        status, out = qemu_io('write 0 4k')
        check(status == 0 and 'failed' not in out, out)
        reader = subprocess.Popen(['qemu-io', '-r', '-f', 'raw', uri],
                                  stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        # It asks for a command when it has opened the image.
        check(reader.stdout.read(1), 'the reader has ended')
        check('in use' in client.ask('block-export-del', id='w')['error']
              ['desc'])
        client.must('quit')
        client.wait_event('BLOCK_EXPORT_DELETED', id='w')
        check(daemon.end() == 0)
        reader.communicate(timeout=TIMEOUT_S)
    finally:
        daemon.kill()


@test
def a_connection_too_many_is_told_in_the_log(folder):
    with open(Path(folder) / 'log', 'w+', encoding='utf-8') as log:
        daemon = Daemon([program], folder, *BLOCKDEV, '--nbd-server',
                        'addr.type=unix,addr.path=nbd.sock,'
                        'max-connections=100', stderr=log)
        clients = [Client.connect_unix(Path(folder) / 'nbd.sock')
                   for _ in range(11)]
        try:
            check(all(c.recv(8) == b'NBDMAGIC' for c in clients[:10]))
            check(clients[10].recv(8) == b'')
        finally:
            for c in clients:
                c.close()
            daemon.kill()
        log.seek(0)
        check(f'connection of uid {os.geteuid()} is refused' in log.read())


@test
def test_scripts_use_nodes_and_let_them_go(folder):
    with open(Path(folder) / 'out', 'w', encoding='utf-8') as out:
        daemon = Daemon([program], folder, '--blockdev',
                        'blkdebug,node-name=d,image.driver=null-co,'
                        'image.size=1M,image.read-zeroes=on', stdout=out)
    try:
        client = daemon.client()
        check(hmp(client, 'qemu-io d "write 0 64k"') == '')
        check(hmp(client, 'qemu-io -d d "read -P 0 0 64k"') == '')
        check('Cannot find device' in hmp(client, 'qemu-io nope "read 0 1"'))
        check('not found' in hmp(client, 'qemu-io d "quit"'))
        check('unknown command' in hmp(client, 'info block'))
        hmp(client, 'qemu-io d "break write_aio A"')
        hmp(client, 'qemu-io d "aio_write 0 64k"')
        hmp(client, 'qemu-io d "wait_break A"')
        check('error' in client.ask('blockdev-del', node_name='d'))
        hmp(client, 'qemu-io d "resume A"')
        hmp(client, 'qemu-io d "aio_flush"')
        client.must('blockdev-del', node_name='d')
        client.must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()
    text = (Path(folder) / 'out').read_text()
    check("blkdebug: Suspended request 'A'" in text, text)
    check(text.count('wrote 65536/65536') == 2, text)


@test
def the_end_does_not_wait_for_a_request_that_is_held(folder):
    daemon = Daemon([program], folder, '--blockdev',
                    'blkdebug,node-name=d,image.driver=null-co,'
                    'image.size=1M', stdout=subprocess.DEVNULL)
    try:
        client = daemon.client()
        hmp(client, 'qemu-io d "break write_aio A"')
        hmp(client, 'qemu-io d "aio_write 0 64k"')
        client.must('quit')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def the_end_does_not_wait_for_a_read_of_a_job_that_hangs(folder):
    with open(Path(folder) / 'errors', 'w', encoding='utf-8') as errors:
        daemon = Daemon([program], folder, *BLOCKDEV, '--blockdev',
                        'null-co,node-name=slow,size=1M,'
                        'latency-ns=3600000000000', stderr=errors)
        try:
            client = daemon.client()
            client.must('blockdev-backup', device='slow', target='n',
                        sync='full', job_id='j')
            for _ in range(100):  # each is a turn, and the job needs a few
                client.must('query-jobs')
            client.must('quit')
            client.wait_event('BLOCK_JOB_CANCELLED', device='j')
            check(daemon.end() == 1)
        finally:
            daemon.kill()
    text = (Path(folder) / 'errors').read_text(encoding='utf-8')
    check('A request of a job does not end: giving up' in text, text)


def end_by_signals(folder, node, server=None):
    """A job that reads from @node, which does not answer (@server is stopped),
    keeps the end waiting, however it was asked for.  The first signal changes
    nothing, the second one ends it."""
    for begin in 'quit', signal.SIGTERM:
        if server:
            server.send_signal(signal.SIGCONT)
        with open(Path(folder) / 'errors', 'w', encoding='utf-8') as errors:
            daemon = Daemon([program], folder, *BLOCKDEV, '--blockdev', node,
                            stderr=errors)
        try:
            client = daemon.client()
            if server:
                server.send_signal(signal.SIGSTOP)
            client.must('blockdev-backup', device='slow', target='n',
                        sync='full', job_id='j')
            for _ in range(100):  # each is a turn, and the job needs a few
                client.must('query-jobs')
            if begin == 'quit':
                client.must('quit')
            else:
                daemon.process.send_signal(begin)
            client.wait_event('BLOCK_JOB_CANCELLED', device='j')
            try:
                while True:
                    client.receive()
            except EOFError:
                pass        # whoever listened has heard it all
            check((Path(folder) / 'qmp.pid').exists(), 'it has no file')
            # Two of a kind may be one.
            if begin == 'quit':
                daemon.process.send_signal(signal.SIGTERM)
            daemon.process.send_signal(signal.SIGINT)
            check(daemon.end() == 1, begin, daemon.end())
        finally:
            daemon.kill()
        text = (Path(folder) / 'errors').read_text(encoding='utf-8')
        check('Ended by a second signal' in text, begin, text)
        check(not (Path(folder) / 'qmp.pid').exists())


@test
def a_second_signal_ends_it_while_it_waits_for_a_job(folder):
    end_by_signals(folder, 'null-co,node-name=slow,size=1M,'
                           'latency-ns=3600000000000')


@test
def a_second_signal_ends_it_while_it_waits_for_a_dead_server(folder):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'raw', 'disk', '1M'],
                   cwd=folder, check=True)
    server = subprocess.Popen(['qemu-nbd', '-f', 'raw', '-t', '-e', '2', '-k',
                               f'{folder}/nbd.sock', '--pid-file', 'nbd.pid',
                               'disk'], cwd=folder)

    try:
        wait_for_file(server, Path(folder) / 'nbd.pid')
        end_by_signals(folder, 'nbd,node-name=slow,server.type=unix,'
                               'server.path=nbd.sock', server)
    finally:
        server.kill()
        server.wait()


HELD = ['--blockdev', 'blkdebug,node-name=d,image.driver=null-co,'
        'image.size=1M,image.read-zeroes=on', '--blockdev',
        'null-co,node-name=t,size=1M']


def hold(client, node='d'):
    """Have a request in flight there that does not end."""
    hmp(client, f'qemu-io {node} "break write_aio A"')
    hmp(client, f'qemu-io {node} "aio_write 0 64k"')


def start_backup(client):
    """Send a command that waits for the request; it has begun when the first
    reply is here, as nobody else runs in between."""
    client.send('{"execute":"query-jobs"}{"execute":"blockdev-backup",'
                '"arguments":{"device":"d","target":"t","sync":"none",'
                '"job-id":"j"}}')
    check(client.reply() == {'return': []})


@test
def a_job_that_a_command_starts_during_the_end_is_cancelled(folder):
    daemon = Daemon([program], folder, *HELD, stdout=subprocess.DEVNULL)
    try:
        client, other = daemon.client(), daemon.client()
        hold(client)
        start_backup(other)
        client.must('quit')
        check(other.reply() == {'return': {}})
        other.wait_event('SHUTDOWN')
        other.wait_event('BLOCK_JOB_CANCELLED', device='j')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def the_end_waits_for_the_command_of_a_client_that_has_left(folder):
    daemon = Daemon([program], folder, *HELD, stdout=subprocess.DEVNULL)
    try:
        client, other = daemon.client(), daemon.client()
        hold(client)
        start_backup(other)
        other.close()
        # The event cannot be sent to it: the connection is given up.
        client.must('blockdev-create', job_id='c', options={
            'driver': 'file', 'filename': 'x', 'size': 0})
        client.wait_event('JOB_STATUS_CHANGE', status='concluded')
        client.must('quit')
        client.wait_event('BLOCK_JOB_CANCELLED', device='j')
        check(daemon.end() == 0)
    finally:
        daemon.kill()


@test
def clients_that_come_before_a_start_that_fails_can_do_nothing(folder):
    server = socket.create_server(('127.0.0.1', 0))
    server.settimeout(TIMEOUT_S)
    port = server.getsockname()[1]
    daemon = subprocess.Popen(
        [program, '--chardev', f'socket,id=c,host=127.0.0.1,port={port}',
         '--monitor', 'c', '--blockdev', 'nope,node-name=x'], cwd=folder,
        stderr=subprocess.DEVNULL)
    try:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b'{"execute":"qmp_capabilities"}')
            said = b''
            try:
                while more := connection.recv(65536):
                    said += more
            except ConnectionResetError:
                pass        # it has not read what was sent
        check(b'QMP' in said and b'return' not in said, said)
        check(daemon.wait(TIMEOUT_S) == 1)
    finally:
        server.close()
        daemon.kill()
        daemon.wait()


def main():
    failed = 0
    for function in tests:
        with tempfile.TemporaryDirectory() as folder:
            try:
                function(folder)
            except Exception as error:      # the others shall run, too
                failed += 1
                print(f'FAILED: {function.__name__}: {error!r}')
    print(f'{len(tests)} tests, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
