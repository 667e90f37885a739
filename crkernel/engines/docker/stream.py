"""A stream into a container: HTTP until the daemon has upgraded it, then stdin one way, and stdout
and stderr, in turns, the other."""

from __future__ import annotations

import asyncio
import json
import logging
import struct

from crkernel.engines.docker.complaints import SEE_DAEMON, SEE_LOG
from crkernel.errors import DaemonRefused, EngineError
from crkernel.guest import wire

log = logging.getLogger(__name__)

_HEADER = struct.Struct(">BxxxI")
_STDERR = 2
_CHUNK = 1 << 16
_BLANK = 0x20
"""No frame is so long that it begins with a character."""


class Stream:
    """What a program in a container writes to stdout, by `read`; `writer` is its stdin.

    It is read only as fast as it is asked for, so a program that writes faster has to wait.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.see_log = SEE_LOG
        """The hint where the daemon refuses something."""
        self._kind = 0  # of the block under way
        self._left = 0  # bytes of it that are to come

    async def upgrade(self, request: bytes) -> None:
        """Send the HTTP request that turns the connection into a stream. Raises DaemonRefused."""
        self.writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(None, 2)[1])
        if status in (101, 200):
            return
        text = (await self._reader.read(_CHUNK)).decode(errors="replace")
        start = text.find("{")
        if start >= 0:
            text = json.loads(text[start : text.rindex("}") + 1]).get("message", text)
        refused = DaemonRefused(f"Docker refused: {text.strip()}", hint=self.see_log)
        refused.status = status
        raise refused

    async def rest(self) -> bytes:
        """All that comes until its end, of an answer that is no stream of blocks."""
        return await self._reader.read()

    async def read(self, size: int) -> bytes:
        """Some bytes of stdout; none at its end. What comes on stderr goes to the log."""
        while True:
            if self._left == 0:
                try:
                    header = await self._reader.readexactly(_HEADER.size)
                except asyncio.IncompleteReadError:
                    return b""
                self._kind, self._left = _HEADER.unpack(header)
                continue
            data = await self._reader.read(min(size, self._left))
            self._left -= len(data)
            if not data or self._kind != _STDERR:
                return data
            log.warning("in the container: %s", data.decode(errors="replace").rstrip())


class Frames:
    """The frames that come out of a stream, one after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = wire.Decoder()
        self._bodies: list[wire.Body] = []
        self._begun = False

    async def next(self) -> wire.Message | None:
        """The next message; None at the end. Raises EngineError, with Docker's words where it has
        started no program that could say something."""
        try:
            while not self._bodies:
                data = await self._stream.read(_CHUNK)
                if not data:
                    return None
                if not self._begun and data[0] >= _BLANK:
                    words = await self._words(data)
                    raise EngineError(f"Docker refused: {words}", hint=self._stream.see_log)
                self._begun = True
                self._bodies = self._decoder.feed(data)
            return wire.parse(self._bodies.pop(0))
        except (OSError, wire.WireError) as error:
            message = f"the stream into the container broke: {error}"
            raise EngineError(message, hint=SEE_DAEMON) from error

    async def _words(self, said: bytes) -> str:
        """All that Docker says, which then hangs up."""
        while len(said) < _CHUNK and (more := await self._stream.read(_CHUNK)):
            said += more
        return said.decode(errors="replace").strip()
