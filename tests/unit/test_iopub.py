"""IOPub with sockets as they are, and another thread that sends, too."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from crkernel.iopub import IOPub


class Channel:
    """An IOPub channel, and who listens to it."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        socket = context.socket(zmq.XPUB)
        socket.linger = 0
        self.port = socket.bind_to_random_port("tcp://127.0.0.1")
        self.session = Session(key=b"secret")
        self.iopub = IOPub(socket, self.session)
        self.client = context.socket(zmq.SUB)
        self.client.linger = 0
        self.client.rcvtimeo = 10_000
        self.client.connect(f"tcp://127.0.0.1:{self.port}")

    def send(self, kind: str) -> None:
        self.session.send(self.iopub, kind, {})  # type: ignore[arg-type]  # as kernels do

    def send_elsewhere(self, kind: str) -> None:
        """From another thread, and the loop does not come round meanwhile."""
        thread = threading.Thread(target=self.send, args=(kind,))
        thread.start()
        thread.join()

    def kind(self) -> str:
        """The next message's."""
        _, frames = self.session.feed_identities(self.client.recv_multipart())
        return str(self.session.deserialize(frames)["msg_type"])

    async def next_kind(self) -> str:
        return await asyncio.to_thread(self.kind)


@pytest.fixture
def channel() -> Iterator[Channel]:
    with zmq.Context() as context:
        channel = Channel(context)
        yield channel
        channel.client.close()
        channel.iopub.close()


async def test_messages_keep_their_order_whichever_thread_sends_them(channel: Channel) -> None:
    channel.client.subscribe(b"")
    channel.iopub.serve(asyncio.get_running_loop())
    assert await channel.next_kind() == "iopub_welcome"
    channel.send_elsewhere("first")
    channel.send("second")
    channel.send_elsewhere("third")
    assert [await channel.next_kind() for _ in range(3)] == ["first", "second", "third"]


async def test_who_subscribes_while_nothing_is_sent_is_welcome(channel: Channel) -> None:
    channel.iopub.serve(asyncio.get_running_loop())
    for topic in (b"", b"kernel"):
        await asyncio.sleep(0.01)
        channel.client.subscribe(topic)
        assert await channel.next_kind() == "iopub_welcome"


async def test_what_was_sent_before_the_loop_comes_when_it_serves(channel: Channel) -> None:
    channel.client.subscribe(b"")
    assert await asyncio.to_thread(channel.iopub._socket.poll, 10_000)
    channel.send_elsewhere("early")
    channel.iopub.serve(asyncio.get_running_loop())
    assert [await channel.next_kind() for _ in range(2)] == ["iopub_welcome", "early"]


class Slow:
    """A socket that somebody subscribes to in the moment before it sends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._socket = channel.iopub._socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def send_multipart(self, parts: list[Any], **options: Any) -> None:
        self._channel.client.subscribe(b"late")
        assert select.select([self._socket.FD], [], [], 10)[0]
        time.sleep(0.01)  # libzmq looks for news at most once in a millisecond
        self._socket.send_multipart(parts, **options)


async def test_who_subscribes_while_a_message_is_sent_is_welcome(channel: Channel) -> None:
    """To send takes the sign that somebody has come from the socket's descriptor."""
    channel.iopub.serve(asyncio.get_running_loop())
    real, channel.iopub._socket = channel.iopub._socket, Slow(channel)  # type: ignore[assignment]
    channel.session.send(channel.iopub, "noise", {}, ident=b"of another topic")  # type: ignore[arg-type]
    channel.iopub._socket = real
    assert await channel.next_kind() == "iopub_welcome"
