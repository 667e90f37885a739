"""The shell channel, on the loop of the main thread.

ipykernel has a stream for it, which keeps what is sent until the loop comes round, and asks ZMQ
four times for each message whether there is more. Here a reply is on its way when it was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

from crkernel.sockets import has_news, send

Handler = Callable[[list[zmq.Frame]], Coroutine[Any, Any, None]]


class Shell:
    """Stands in for a stream where messages come and are answered."""

    def __init__(self, socket: zmq.Socket[bytes], io_loop: IOLoop) -> None:
        self.io_loop = io_loop
        self._socket = socket
        self._loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self._at_work: set[asyncio.Task[None]] = set()  # or the collector takes them
        self._handler: Handler | None = None

    @classmethod
    def in_place_of(cls, stream: ZMQStream) -> Shell:
        """On the socket and the loop of a stream, which is of no more use."""
        stream.io_loop.remove_handler(stream.socket)
        return cls(stream.socket, stream.io_loop)

    def on_recv(self, handler: Handler, *, copy: bool = False) -> None:  # noqa: ARG002
        """Have each message handled, from now on, in a task and a context of its own."""
        self._handler = handler
        self._loop.add_reader(self._socket.FD, self.receive)
        self._loop.call_soon(self.receive)  # what came before

    def receive(self) -> None:
        """Take all that has come."""
        assert self._handler is not None
        while has_news(self._socket):
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            task = self._loop.create_task(self._handler(frames))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)

    def send_multipart(self, parts: list[Any], *, copy: bool = True) -> None:
        """As a socket does; called by `Session.send`."""
        send(self._socket, parts, copy=copy)
        if has_news(self._socket):  # to send may have taken the sign of it
            self._loop.call_soon(self.receive)

    def flush(self, _flag: int = 0) -> None:
        """Nothing waits here; called by the base class, where something does."""
