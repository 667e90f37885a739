"""The nest's end of its link to the kernel: JSON objects, with descriptors where those can travel.

On the kernel's own machine it is a socket, and each message a datagram, or in a file that a
datagram brings along. Into a container it is the stream of a `gate`, and each message a frame:
descriptors stay behind there, and what they would have given goes another way, see
docs/protocol.md.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

from . import wire
from .gate import Arrival

_MAX_DATAGRAM = 1 << 16
_IN_FILE = b"file"
"""A datagram whose message is in a file, the first descriptor that comes along."""
_MAX_BROUGHT = 8
_CHUNK = 1 << 18

Json = dict[str, Any]
Request = tuple[Json, list[int]]


def send(control: socket.socket, message: Json, descriptors: Sequence[int] = ()) -> None:
    """A message of any length, as one datagram. Raises OSError."""
    body = wire.encode(message)
    if len(body) <= _MAX_DATAGRAM:
        socket.send_fds(control, [body], descriptors)
        return
    with os.fdopen(os.memfd_create("crkernel"), "wb") as file:
        file.write(body)
        file.flush()
        socket.send_fds(control, [_IN_FILE], [file.fileno(), *descriptors])


def receive(control: socket.socket, most: int) -> Request | None:
    """The message in the next datagram, and the descriptors that came along, `most` of them; None
    once the other side is gone. Raises OSError, and WireError for what is no whole message."""
    body, descriptors, flags, _ = socket.recv_fds(control, _MAX_DATAGRAM, most + 1)
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise wire.WireError("a datagram was cut")
        if body == _IN_FILE and descriptors:
            with open(descriptors.pop(0), "rb") as file:
                file.seek(0)
                body = file.read()
        return (wire.parse(body), descriptors) if body else None
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


class SocketLink:
    """A `SOCK_SEQPACKET` socket."""

    carries_descriptors = True

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def fileno(self) -> int:
        """For a selector."""
        return self._control.fileno()

    def receive(self) -> list[Request] | None:
        """The requests that have come; None once the kernel is gone. Raises WireError for what is
        none."""
        try:
            request = receive(self._control, _MAX_BROUGHT)
        except ConnectionResetError:
            return None  # it was killed
        return [request] if request else None

    def send(self, message: Json, descriptors: list[int] | None = None) -> None:
        """Tell the kernel. Raises OSError."""
        send(self._control, message, descriptors or ())

    def close(self) -> None:
        """Hang up."""
        self._control.close()


class GateLink:
    """The stream of a gate. It lives as long as the nest, or until `close`."""

    carries_descriptors = False

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._decoder = wire.Decoder()

    def fileno(self) -> int:
        """For a selector."""
        return self._arrival.reader

    def receive(self) -> list[Request] | None:
        """The requests that have come; None once the kernel is gone. Raises WireError for what is
        none."""
        data = os.read(self._arrival.reader, _CHUNK)
        if not data:
            return None
        return [(wire.parse(body), []) for body in self._decoder.feed(data)]

    def send(self, message: Json, _descriptors: list[int] | None = None) -> None:
        """Tell the kernel. Raises OSError."""
        write_all(self._arrival.writer, wire.pack(message))

    def close(self) -> None:
        """Hang up."""
        self._arrival.close()


class Channel:
    """A byte stream between a supervisor and the kernel: one socket, or a pipe for each way. What
    is `kept` has to stay open with it."""

    def __init__(self, reader: int, writer: int, *kept: int) -> None:
        self._reader = reader
        self._writer = writer
        self._kept = kept

    @property
    def descriptors(self) -> list[int]:
        """All of it, to be handed to another process."""
        return [self._reader, self._writer, *self._kept]

    def successor(self) -> Channel:
        """The one that takes its place. Raises OSError if there is none."""
        raise OSError("there is no other stream")

    def fileno(self) -> int:
        """For a selector: what comes from the kernel."""
        return self._reader

    def recv(self, size: int) -> bytes:
        """Bytes of the kernel; none once it is gone."""
        return os.read(self._reader, size)

    def sendall(self, data: wire.Body, /) -> None:
        """Waits for as long as the kernel does not read. Raises BrokenPipeError."""
        write_all(self._writer, data)

    def sendall_or_end(self, data: wire.Body | memoryview) -> None:
        """As `sendall` to a kernel that says nothing itself, but raises BrokenPipeError when it
        hangs up: what carries the stream into a container may keep its other end open then."""
        os.set_blocking(self._writer, False)
        poll = select.poll()
        poll.register(self._writer, select.POLLOUT)
        poll.register(self._reader, select.POLLIN | (self._reader == self._writer) * select.POLLOUT)
        rest = memoryview(data)
        while rest:
            ready = dict(poll.poll())
            if ready.get(self._reader, 0) & ~select.POLLOUT:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            rest = rest[os.write(self._writer, rest) :]


class Berth(Channel):
    """A stream between a supervisor and its nest, by which the one to the kernel will come."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream.dup()
        super().__init__(self._stream.fileno(), self._stream.fileno())
        self._brought: list[int] = []

    def recv(self, size: int) -> bytes:
        """As `Channel.recv`; descriptors that come along are kept."""
        data, descriptors, _, _ = socket.recv_fds(self._stream, size, _MAX_BROUGHT)
        self._brought += descriptors
        return data

    def successor(self) -> Channel:
        """Of the descriptors that came: where complaints go, and a channel."""
        complaints, *channel = self._brought
        for number in (1, 2):
            os.dup2(complaints, number)
        os.close(complaints)
        self._stream.close()
        return Channel(*channel)


def write_all(descriptor: int, data: wire.Body) -> None:
    """All of it, however long that takes. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
