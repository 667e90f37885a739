"""The link between kernel and nest on one machine: messages of any length, and what is none."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_session import LIMITS

from crkernel.engines.local import LocalEngine
from crkernel.errors import EngineError
from crkernel.guest import link, wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("size", [0, 1 << 16, 5 << 20])
def test_a_message_of_any_length_and_its_descriptors(pair: Pair, size: int) -> None:
    ours, theirs = pair
    reader, writer = os.pipe()
    link.send(ours, {"text": "x" * size}, [writer])
    os.close(writer)
    message, (brought,) = link.receive(theirs, 2) or ({}, [])
    assert message == {"text": "x" * size}
    os.write(brought, b"here")
    os.close(brought)
    assert os.read(reader, 10) == b"here"
    os.close(reader)
    ours.close()
    assert link.receive(theirs, 2) is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"file", b"{" + b" " * (1 << 16) + b"}"])
def test_what_is_no_whole_message(pair: Pair, data: bytes) -> None:
    ours, theirs = pair
    before = _open()
    socket.send_fds(ours, [data], [0, 1, 2] if data != b"file" else [])
    with pytest.raises(wire.WireError):
        link.receive(theirs, 1)
    assert _open() == before
    link.send(ours, {"next": 1})
    assert link.receive(theirs, 1) == ({"next": 1}, [])


def _open() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_an_answer_that_cannot_be_read_is_an_error_and_not_the_end(pair: Pair) -> None:
    ours, theirs = pair
    engine = LocalEngine(LIMITS)
    link.send(theirs, {"ready": wire.PROTOCOL})
    await engine._hello(ours)
    asking = asyncio.ensure_future(engine.status())
    await asyncio.sleep(0)
    theirs.send(b'{"id": 1, "used": ')
    with pytest.raises(EngineError, match="an answer of the nest was lost"):
        await asking
    asking = asyncio.ensure_future(engine.status())
    await asyncio.sleep(0)
    link.send(theirs, {"id": 2, "used": 3, "size": 4})
    assert (await asking)["staging used"] == 3
    engine._disconnect()
