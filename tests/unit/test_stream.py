"""The kernel's end of a sandbox's socket."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import pytest

from crkernel.engines import stream
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import SandboxDied


async def test_all_that_has_come_then_its_end() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await stream.opened(ours)
    theirs.sendall(b"one")
    await asyncio.sleep(0.05)
    theirs.sendall(b"two")
    await asyncio.sleep(0.05)
    assert await reader.read() == b"onetwo"
    waiting = asyncio.ensure_future(reader.read())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    theirs.sendall(b"three")
    theirs.close()
    assert await waiting == b"three"
    assert await reader.read() == b""
    assert await reader.read() == b""
    writer.close()


async def test_a_broken_connection() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await stream.opened(ours)
    theirs.sendall(b"last")
    await asyncio.sleep(0.05)
    reader.set_exception(ConnectionResetError("it broke"))
    assert await reader.read() == b"last"
    with pytest.raises(ConnectionResetError, match="it broke"):
        await reader.read()
    writer.close()
    theirs.close()


@pytest.mark.parametrize(
    "error", [TimeoutError(errno.ETIMEDOUT, "timed out"), ssl.SSLError("bad record"), MemoryError()]
)
async def test_whatever_ends_the_hearing_is_a_death(error: Exception) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await stream.opened(ours)

    async def end() -> None:
        theirs.close()

    sandbox = Sandbox(reader, writer, end)
    waiting = [sandbox.call("execute"), asyncio.ensure_future(sandbox.rested())]
    await asyncio.sleep(0)
    reader.set_exception(error)
    async with asyncio.timeout(5):
        for answer in waiting:
            with pytest.raises(SandboxDied, match=r"broke|could not be taken"):
                await answer
    assert sandbox.death is not None
    await sandbox.end()
