"""The IOPub channel, on the loop of the main thread.

ipykernel has a thread for it, because cells in Python keep the main one busy. Ours run elsewhere,
and of two threads that take turns with Python's lock each waits for the other with every message.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq
from jupyter_client.session import Session

from crkernel import allocator
from crkernel.sockets import has_news, send

_MARKED = 1 << 16
"""Bytes after which ZMQ is to tell when it has sent them, which costs 40 µs; it counts none."""
_PAUSE_SECONDS = 3.0
"""After big messages, before the memory that they took is given back."""


class IOPub:
    """Stands in for its XPUB socket where messages are sent. The socket is the main thread's, which
    makes this: what others send is handed over."""

    def __init__(self, socket: zmq.Socket[bytes], session: Session) -> None:
        self._socket = socket
        self._session = session
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed: deque[Callable[[], None]] = deque()
        self._marks: deque[tuple[int, zmq.MessageTracker]] = deque()
        self._marked = self._unmarked = 0  # bytes, of what may wait
        self._pause: asyncio.TimerHandle | None = None

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Welcome who subscribes, and send what is handed over, from now on."""
        self._loop = loop
        loop.add_reader(self._socket.FD, self._welcome)
        self._send_handed()
        self._welcome()

    def send_multipart(self, parts: list[Any], *, copy: bool = True) -> None:
        """As a socket does; called by `Session.send`."""
        self._handed.append(partial(self._send, parts, copy))
        if threading.get_ident() == self._thread:
            self._send_handed()  # nothing overtakes what others have sent before
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._send_handed)

    @property
    def waiting(self) -> int:
        """Bytes in our memory for clients that are slow to take them; up to 64 KiB of them have
        left already. What waits in a client, or on the way to it, does not count."""
        while self._marks and self._marks[0][1].done:
            self._marked -= self._marks.popleft()[0]
        return self._marked + self._unmarked

    def close(self) -> None:
        """Called on the main thread when all others have ended: their last words go out."""
        self._send_handed()
        self._socket.close()

    def _send_handed(self) -> None:
        while self._handed:
            self._handed.popleft()()

    def _send(self, parts: list[Any], copy: bool) -> None:
        self._welcome()  # what somebody gets first is the welcome
        self._unmarked += sum(map(len, parts))
        if self._unmarked >= _MARKED:
            parts = self._mark(parts)
            self._give_back_later()
        send(self._socket, parts, copy=copy)
        self._welcome()  # to send may have taken the sign that more have subscribed

    def _mark(self, parts: list[Any]) -> list[Any]:
        """Have ZMQ tell when a message has left, and with it all that was sent before."""
        longest = max(range(len(parts)), key=lambda number: len(parts[number]))
        frame = zmq.Frame(parts[longest], track=True, copy=False, copy_threshold=0)
        assert frame.tracker is not None  # it was asked for
        waits = self.waiting
        self._marks.append((self._unmarked, frame.tracker))
        self._marked, self._unmarked = waits, 0
        return [*parts[:longest], frame, *parts[longest + 1 :]]

    def _give_back_later(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._loop is not None:
            self._pause = self._loop.call_later(_PAUSE_SECONDS, allocator.give_back)

    def _welcome(self) -> None:
        """Greet, by a message of its own, each subscription that nobody else has already."""
        while has_news(self._socket):
            frame = self._socket.recv(zmq.NOBLOCK)
            if frame.startswith(b"\1"):
                topic = frame[1:]
                content = {"subscription": topic.decode(errors="replace")}
                message = self._session.msg("iopub_welcome", content)
                self._socket.send_multipart(self._session.serialize(message, topic or None))
