"""The stream in which checkpoints travel from one staging to another.

    magic, with the format's version
    messages: frames of JSON, each a `part`, some followed by a file
    a file:   pieces (offset, length, data) in rising order, holes left out; a piece without data
    a sum:    SHA-256 of the whole stream so far, after the first message, each file and the end

`docs/protocol.md` lists the parts. Nothing is believed before its sum has come.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterable

from . import wire
from .link import Channel

MAGIC = b"crkernel checkpoints 1\n"
_FAMILY = MAGIC[:21]
_PIECE = struct.Struct("!QI")
_LENGTH = struct.Struct("!I")
PAGE = 4096
_MOST = 1 << 20
"""Bytes of a piece, and of a message."""


class Refused(Exception):
    """Checkpoints cannot go or cannot come; crosses the wire as data."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.data = {"kind": kind, "message": message}


class Outgoing:
    """The end that sends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sum = hashlib.sha256()
        self._room = memoryview(bytearray(_MOST))
        self._send(MAGIC)

    def say(self, part: str, **fields: object) -> None:
        """A message. Raises OSError once nobody listens."""
        message = wire.pack({"part": part, **fields})
        if len(message) > _MOST:
            raise Refused("EngineError", f"a checkpoint's {part} is too long to travel")
        self._send(message)

    def file(self, descriptor: int, size: int, data: Iterable[tuple[int, int]]) -> None:
        """A file of so many bytes, with `data` between these offsets. Raises OSError."""
        for start, end in data:
            while start < end:
                piece = self._room[: min(end - start, _MOST)]
                count = os.preadv(descriptor, [piece], start)
                if count == 0:
                    raise Refused("EngineError", "a file of a checkpoint was cut meanwhile")
                self._send(_PIECE.pack(start, count))
                self._send(piece[:count])
                start += count
        self._send(_PIECE.pack(size, 0))
        self.sum()

    def sum(self) -> None:
        """What the other end compares."""
        self._send(self._sum.digest())

    def _send(self, data: bytes | memoryview) -> None:
        self._sum.update(data)
        self._channel.sendall_or_end(data)


class Incoming:
    """The end that receives. All methods raise ValueError for what is no such stream, EOFError
    where it ends too early."""

    def __init__(self, channel: Channel) -> None:
        """Raises Refused for a stream of another version."""
        self.left = 0
        """Bytes of data that may still come."""
        self._descriptor = channel.fileno()
        self._sum = hashlib.sha256()
        self._room = memoryview(bytearray(_MOST))
        magic = bytes(self._take(len(MAGIC)))
        if magic != MAGIC:
            ours = magic.startswith(_FAMILY)
            kind = "FormatVersion" if ours else "Corrupt"
            raise Refused(kind, "another version wrote it" if ours else "it holds no checkpoints")

    def hear(self) -> wire.Message:
        """The next message."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        if length > _MOST:
            raise ValueError(f"a message claims {length} bytes")
        return wire.parse(bytes(self._take(length)))

    def file(self, descriptor: int, size: int, *, whole: bool) -> None:
        """Write the data that comes into a new file of so many bytes; one that is `whole` has no
        holes. Raises OSError."""
        position = 0
        os.ftruncate(descriptor, size)
        while True:
            offset, length = _PIECE.unpack(self._take(_PIECE.size))
            if not position <= offset <= size or length > min(_MOST, size - offset):
                raise ValueError("a file has a piece that is not its own")
            if whole and offset != position:
                raise ValueError("a file has a hole that it must not have")
            if length == 0:
                break
            if (offset | position) % PAGE:  # crumbs would take a page each
                raise ValueError("a file has a piece that begins or ends within a page")
            self.left -= length
            if self.left < 0:
                raise ValueError("more comes than was said")
            position = offset + length
            _write(descriptor, self._take(length), offset)
        if offset != size:
            raise ValueError("a file ends before its size")
        self.sum()

    def sum(self) -> None:
        """Compare all that came so far."""
        ours = self._sum.digest()
        if not hmac.compare_digest(ours, self._take(len(ours))):
            raise ValueError("a check sum differs")

    def _take(self, size: int) -> memoryview:
        room = self._room[:size]
        taken = 0
        while taken < size:
            count = os.readv(self._descriptor, [room[taken:]])
            if count == 0:
                raise EOFError
            taken += count
        self._sum.update(room)
        return room


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count
