"""ZMQ's sockets without the flags that pyzmq makes anew for each part of a message, which takes
longer than to send it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

_NEWS, _MORE = int(zmq.POLLIN), int(zmq.SNDMORE)


def has_news(socket: zmq.Socket[bytes]) -> bool:
    """Whether there is something to receive."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _NEWS)


def send(socket: zmq.Socket[bytes], parts: Sequence[Any], *, copy: bool = True) -> None:
    """A message; each part has a buffer."""
    for part in parts[:-1]:
        socket.send(part, _MORE, copy=copy)
    socket.send(parts[-1], copy=copy)
