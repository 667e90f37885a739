"""A stream from outside of a container to its nest.

In a container nobody can pass descriptors to the nest from outside. So `docker exec` starts this:
it hands its own stdin and stdout to the nest, over a socket that only the container's processes
reach, and stays until the nest lets go of that. What it says with them is its argument, JSON:

    {"link": "kernel", "kernel": ..., "token": ...}       the kernel's link to the nest
    {"link": "sandbox", "kernel": ..., "ticket": ...}     what will be the stream of a sandbox

`kernel` is what the kernel calls itself. No guest gets here: a sandbox has a network namespace of
its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

ADDRESS = b"\0crkernel-nest"
_PATIENCE = 10.0  # seconds for a nest that is just starting
_STEP = 0.005
_MAX_GREETING = 4096


def main() -> None:
    """Hand over the stream and wait for its end."""
    with _connection() as nest:
        socket.send_fds(nest, [sys.argv[1].encode()], [0, 1])
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1):
            os.dup2(null, number)  # so that an end of the nest is one for the stream's other side
        nest.recv(1)


def _connection() -> socket.socket:
    deadline = time.monotonic() + _PATIENCE
    while True:
        nest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            nest.connect(ADDRESS)
        except ConnectionRefusedError:
            nest.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(_STEP)  # the container has come up before its nest
        else:
            return nest


def listen() -> socket.socket:
    """The nest's side: be there for gates."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(ADDRESS)
    listener.listen()
    return listener


class Arrival:
    """A gate that has come: what it says, and descriptors of its stream, closed together."""

    def __init__(self, listener: socket.socket) -> None:
        """Take the next one. Raises OSError or ValueError for what is no gate."""
        connection, _ = listener.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, _MAX_GREETING, 2)
        self.held = [connection.detach(), *descriptors]
        try:
            self.greeting = json.loads(data)
            self.gate, self.reader, self.writer = self.held
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the stream, and of the gate."""
        while self.held:
            os.close(self.held.pop())


if __name__ == "__main__":
    main()
