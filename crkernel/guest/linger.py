"""A restart of the kernel: the nest waits for the next kernel, so that the past stays reachable.

The two kernels share the secret of their Jupyter connection. The nest listens on an abstract
address that both derive from it, and hands itself over to whoever knows the rest of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import time

from .greeting import is_ours

SECONDS = 60.0
"""How long a nest waits; a front end starts the next kernel at once."""
_MAX_TOKEN = 128


def address(secret: bytes) -> bytes:
    """Of the abstract socket. Other users of the machine can see it."""
    return b"\0crkernel-" + hashlib.sha256(b"address" + secret).hexdigest().encode()[:32]


def token(secret: bytes) -> bytes:
    """What the next kernel must say first. Nobody else can know it."""
    return hashlib.sha256(b"token" + secret).hexdigest().encode()


def listen(where: bytes) -> socket.socket:
    """Be there from now on. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(where)
    listener.listen(1)
    return listener


def await_heir(listener: socket.socket, expected: bytes) -> socket.socket | None:
    """The connection of the next kernel, or None if none came in time."""
    deadline = time.monotonic() + SECONDS
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection, _ = listener.accept()
            connection.settimeout(min(left, 1.0))
            if hmac.compare_digest(connection.recv(_MAX_TOKEN), expected):
                connection.settimeout(None)
                return connection
            connection.close()
        except OSError:
            continue  # timed out, or somebody else knocked and left
    return None


def claim(secret: bytes) -> socket.socket | None:
    """The next kernel's side: the connection to a nest that waits, if there is one. Anybody may
    have taken its name, and gets to know nothing."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.suppress(OSError):
        connection.connect(address(secret))
        if is_ours(connection):
            connection.send(token(secret))
            return connection
    connection.close()
    return None
