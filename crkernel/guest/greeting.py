"""How a kernel and a nest that was started before it know each other, on one machine."""

from __future__ import annotations

import os
import socket
import struct

from .enter import UNPRIVILEGED_IDS

CLAIM = b"kernel"
"""What a kernel says first; along comes the descriptor that takes the nest's complaints."""
_CREDENTIALS = struct.Struct("3i")


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user id of the other end; of a socket with a name, those of who listens there."""
    size = _CREDENTIALS.size
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, user, _ = _CREDENTIALS.unpack(found)
    return pid, user


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end is of this user: each nest of root's is a user of its own."""
    own = os.geteuid()
    pid, user = peer(connection)
    return user == own or (own == 0 and user == UNPRIVILEGED_IDS[pid])
