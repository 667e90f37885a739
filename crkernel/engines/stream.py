"""A socket to a supervisor as asyncio's pair of reader and writer; the reader moves nothing.

asyncio's own keeps what comes in one buffer, from where a part is copied out and the rest moved up:
of a long output that takes longer than to receive it (10 ms of 13 for 10 MB). Here whoever reads
takes all that has come.
"""

from __future__ import annotations

import asyncio
import socket


class Reader(asyncio.StreamReader):
    """Gives out what has come as it came."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: list[bytes] = []
        self._news = asyncio.Event()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # it gives us bytes only
        """Called by asyncio, as the two below."""
        self._chunks.append(data)
        self._news.set()

    def feed_eof(self) -> None:
        """Nothing more comes."""
        super().feed_eof()
        self._news.set()

    def set_exception(self, exc: Exception) -> None:
        """The connection is broken."""
        super().set_exception(exc)
        self._news.set()

    async def read(self, n: int = -1) -> bytes:  # noqa: ARG002  how much has come tells
        """All that has come; nothing at the end. Raises OSError."""
        await self._news.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        error = self.exception()
        if error is not None and not data:
            raise error
        if error is None and not self.at_eof():
            self._news.clear()
        return data


async def opened(sock: socket.socket) -> tuple[Reader, asyncio.StreamWriter]:
    """Both for one end of a connected socket."""
    loop, reader = asyncio.get_running_loop(), Reader()
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
