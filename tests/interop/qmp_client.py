# SPDX-License-Identifier: LGPL-2.1-or-later
"""A control client, and a daemon under test in a folder of its own."""
import json
import os
import select
import socket
import subprocess
import time
from pathlib import Path

TIMEOUT_S = 30


def wait_for_end(pid, timeout_s=TIMEOUT_S):
    """Whether the process ends in that time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(process, select.POLLIN)
    try:
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(process)


def wait_for_file(process, path):
    """Until @process has made the file @path.

    Of files no descriptor tells, so this looks again and again; but the end of
    the process is known at once."""
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        if wait_for_end(process.pid, 0.01):
            raise AssertionError(f'{process.args} ended with {process.wait()}')
        if time.monotonic() > deadline:
            raise AssertionError(f'{process.args}: no {path}')


class Client:
    """One connection; events are kept until somebody asks for them."""

    def __init__(self, address, negotiate=True):
        """@address is the path of a socket, or a pair of host and port."""
        if isinstance(address, tuple):
            self.socket = socket.create_connection(address, TIMEOUT_S)
        else:
            self.socket = self.connect_unix(Path(address))
        self.data = b''
        self.events = []
        self.greeting = self.receive()
        if negotiate:
            self.must('qmp_capabilities')

    @staticmethod
    def connect_unix(path):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        # A path may be longer than the address of a socket holds.
        folder = os.open(path.parent, os.O_PATH)
        try:
            connection.connect(f'/proc/self/fd/{folder}/{path.name}')
        finally:
            os.close(folder)
        return connection

    def receive(self):
        """The next message, whatever it is; EOFError at the end."""
        while b'\n' not in self.data:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.data += more
        line, self.data = self.data.split(b'\n', 1)
        return json.loads(line)

    def reply(self):
        """The next message that is no event."""
        while True:
            message = self.receive()
            if 'event' not in message:
                return message
            self.events.append(message)

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes)
                            else text.encode())

    def ask(self, name, /, **arguments):
        """The reply to a command; '_' in names of arguments is '-'."""
        request = {'execute': name}
        if arguments:
            request['arguments'] = {key.replace('_', '-'): value
                                    for key, value in arguments.items()}
        return self.ask_json(request)

    def ask_json(self, request):
        self.send(json.dumps(request) + '\n')
        return self.reply()

    def must(self, name, /, **arguments):
        """What a command that must work returns."""
        reply = self.ask(name, **arguments)
        if 'return' not in reply:
            raise AssertionError(f'{name} {arguments}: {reply}')
        return reply['return']

    def wait_event(self, name, /, **data):
        """The event of that name with these data; others before it stay."""
        at = 0
        while True:
            for at in range(at, len(self.events)):
                event = self.events[at]
                if event['event'] == name and all(
                        event.get('data', {}).get(key) == value
                        for key, value in data.items()):
                    return self.events.pop(at)
            at = len(self.events)
            self.events.append(self.receive())

    def close(self):
        self.socket.close()


class Daemon:
    """A daemon with one control socket, qmp.sock in @folder."""

    def __init__(self, command, folder, *options, stdout=None,
                 stderr=None):
        self.path = Path(folder) / 'qmp.sock'
        self.process = subprocess.Popen(
            [*command, *options, '--chardev',
             'socket,id=qmp,path=qmp.sock,server=on,wait=off',
             '--monitor', 'chardev=qmp', '--pidfile', 'qmp.pid'], cwd=folder,
            stdout=stdout, stderr=stderr)
        # qemu-storage-daemon greets who connects before it is ready twice; it
        # writes the file when all options are done.
        wait_for_file(self.process, Path(folder) / 'qmp.pid')

    def client(self, negotiate=True):
        return Client(self.path, negotiate)

    def end(self):
        """The exit status of a daemon that has been asked to end."""
        return self.process.wait(TIMEOUT_S)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
