"""How a kernel and a nest that was started before it know each other, on one machine."""

from __future__ import annotations

import socket
import struct

CLAIM = b"kernel"
"""What a kernel says first; along comes the descriptor that takes the nest's complaints."""
_CREDENTIALS = struct.Struct("3i")


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user id of the other end; of a socket with a name, those of who listens there."""
    size = _CREDENTIALS.size
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, user, _ = _CREDENTIALS.unpack(found)
    return pid, user
