"""IOPub with sockets as they are, and another thread that sends, too."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from crkernel import allocator
from crkernel.iopub import IOPub
from crkernel.sink import IOPubSink


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

    def send(self, part: bytes, *flags: int, copy: bool) -> None:
        if not flags:  # the last part
            self._channel.client.subscribe(b"late")
            assert select.select([self._socket.FD], [], [], 10)[0]
            time.sleep(0.01)  # libzmq looks for news at most once in a millisecond
        self._socket.send(part, *flags, copy=copy)


async def test_who_subscribes_while_a_message_is_sent_is_welcome(channel: Channel) -> None:
    """To send takes the sign that somebody has come from the socket's descriptor."""
    channel.iopub.serve(asyncio.get_running_loop())
    real, channel.iopub._socket = channel.iopub._socket, Slow(channel)  # type: ignore[assignment]
    channel.session.send(channel.iopub, "noise", {}, ident=b"of another topic")  # type: ignore[arg-type]
    channel.iopub._socket = real
    assert await channel.next_kind() == "iopub_welcome"


async def test_what_waits_for_a_slow_client_is_known_in_bytes(channel: Channel) -> None:
    """Small messages and big ones, and nothing of what has left."""
    iopub, client = channel.iopub, channel.client
    client.rcvhwm = 1
    client.subscribe(b"")
    iopub.serve(asyncio.get_running_loop())
    assert await channel.next_kind() == "iopub_welcome"
    for size in (100, 100_000) * 300:
        iopub.send_multipart([b"t", b"x" * size, b""], copy=size < 1000)
    assert 1 << 20 < iopub.waiting < 300 * 100_200, "sockets hold the rest"
    for _ in range(600):
        await asyncio.to_thread(client.recv_multipart)
    while iopub.waiting > 100_000:
        await asyncio.sleep(0.001)
    assert len(iopub._marks) <= 1


async def test_memory_of_big_messages_is_given_back_in_a_pause(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = asyncio.Event()
    monkeypatch.setattr(allocator, "give_back", given.set)
    monkeypatch.setattr("crkernel.iopub._PAUSE_SECONDS", 0.05)
    channel.iopub.serve(asyncio.get_running_loop())
    channel.send("small")
    await asyncio.sleep(0.1)
    assert not given.is_set()
    for _ in range(5):
        channel.iopub.send_multipart([b"x" * 100_000, b""])
        assert not given.is_set()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        await given.wait()


async def test_a_cut_ends_when_the_client_has_caught_up(channel: Channel) -> None:
    """Each is told once; a stream that the client keeps up with has no end."""
    client = channel.client
    client.rcvhwm = 1
    client.subscribe(b"")
    channel.iopub.serve(asyncio.get_running_loop())
    assert await channel.next_kind() == "iopub_welcome"
    kernel: Any = SimpleNamespace(session=channel.session, iopub_socket=channel.iopub, ident="k")
    sink = IOPubSink(kernel, {}, silent=False, room=1 << 16)
    for _ in range(2):
        shown = 0
        while sink.takes(needed=False):
            sink.display({"text/plain": "x" * (1 << 16)}, {}, {}, False)
            shown += 1
        assert shown >= 16
        assert not sink.takes(needed=False)
        assert sink.takes(needed=True)
        kinds = [await channel.next_kind() for _ in range(shown + 1)]
        assert kinds == ["display_data"] * shown + ["stream"]
        while not sink.takes(needed=False):
            await asyncio.sleep(0.001)
    for _ in range(40):  # more than may wait
        assert sink.takes(needed=False)
        sink.display({"text/plain": "x" * (1 << 16)}, {}, {}, False)
        assert await channel.next_kind() == "display_data"


async def test_comms_that_open_and_close_have_their_bound(channel: Channel) -> None:
    channel.client.rcvhwm = 1
    channel.client.subscribe(b"")
    channel.iopub.serve(asyncio.get_running_loop())
    assert await channel.next_kind() == "iopub_welcome"
    kernel: Any = SimpleNamespace(session=channel.session, iopub_socket=channel.iopub, ident="k")
    sink = IOPubSink(kernel, {}, silent=True, room=1 << 16)
    while sink.takes(needed=True):
        sink.comm("comm_open", {"comm_id": "c", "data": "x" * (1 << 16)}, {}, ())
    assert not sink.takes(needed=False)
    assert 2 << 20 <= channel.iopub.waiting < 3 << 20
