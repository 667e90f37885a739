"""The shell channel with sockets as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

from crkernel.shell import Shell


class Channel:
    """A shell channel, and who asks there."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.client = context.socket(zmq.DEALER)
        self.client.linger = 0
        self.client.rcvtimeo = 10_000
        self.client.connect(f"tcp://127.0.0.1:{port}")
        self.shell = Shell.in_place_of(ZMQStream(self.socket, IOLoop.current()))
        self.heard: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def hear(self, frames: list[zmq.Frame]) -> None:
        self.heard.put_nowait([frame.bytes for frame in frames])


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    with zmq.Context() as context:
        channel = Channel(context)
        yield channel
        asyncio.get_running_loop().remove_reader(channel.socket.FD)
        channel.client.close()
        channel.socket.close()


async def test_messages_come_in_order_also_those_of_before(channel: Channel) -> None:
    for number in range(3):
        channel.client.send(b"%d" % number)
    assert channel.socket.poll(10_000)
    channel.shell.on_recv(channel.hear)
    for number in range(3, 6):
        channel.client.send(b"%d" % number)
    assert [(await channel.heard.get())[1] for _ in range(6)] == [b"%d" % n for n in range(6)]


async def test_an_answer_is_on_its_way_when_it_was_sent(channel: Channel) -> None:
    channel.shell.on_recv(channel.hear)
    channel.client.send(b"question")
    identity, _ = await channel.heard.get()
    channel.shell.send_multipart([identity, b"answer"], copy=True)
    assert channel.client.recv() == b"answer", "the loop has not come round"


async def test_what_comes_while_an_answer_is_sent_is_not_missed(channel: Channel) -> None:
    """To send takes the sign that something has come from the socket's descriptor."""
    channel.shell.on_recv(channel.hear)
    for _ in range(200):
        channel.client.send(b"question")
        identity, _ = await asyncio.wait_for(channel.heard.get(), 10)
        channel.client.send(b"more")
        channel.shell.send_multipart([identity, b"answer"])
        assert (await asyncio.wait_for(channel.heard.get(), 10))[1] == b"more"


async def test_who_cannot_wait_takes_what_has_come(channel: Channel) -> None:
    channel.shell.on_recv(channel.hear)
    channel.client.send(b"next")
    assert channel.socket.poll(10_000), "the loop has not come round"
    channel.shell.receive()
    await asyncio.sleep(0)
    assert channel.heard.get_nowait()[1] == b"next"
