"""What the kernel makes of events that no guest of ours sends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from crkernel import outcome
from crkernel.comms import Comms
from crkernel.engines.sandbox import Sandbox
from crkernel.guest import wire


async def _end() -> None:
    """There is nothing behind it."""


class _Writer:
    """Nothing is asked."""

    def close(self) -> None:
        """See `asyncio.StreamWriter`."""

    async def wait_closed(self) -> None:
        """See `asyncio.StreamWriter`."""


class _Sent:
    """A sink that keeps the messages of comms."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def comm(self, kind: str, *_: Any) -> None:
        """See `Sink.comm`."""
        self.kinds.append(kind)


async def heard(*events: bytes, listener: Any) -> str:
    """How a sandbox ended that sent these; its guest's events go to the listener."""
    reader = asyncio.StreamReader(limit=1 << 30)
    writer: Any = _Writer()
    sandbox = Sandbox(reader, writer, _end)
    ends: asyncio.Future[wire.Message] = asyncio.get_running_loop().create_future()
    sandbox.on_event, sandbox.on_exit = listener, ends.set_result
    for event in events:
        reader.feed_data(wire.frame(event, wire.EVENT))
    reader.feed_eof()
    how = await ends
    await sandbox.end()
    return str(how["reason"])


def opening(number: str, target: str = "t") -> dict[str, Any]:
    """An event of a comm that opens."""
    event: dict[str, Any] = {"event": "comm", "kind": "open", "comm": number, "target": target}
    return event | {"data": {}, "metadata": {}, "buffers": []}


async def test_a_flood_that_means_nothing_is_two_lines_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One each for what the guest does and for what we do wrong."""

    def listener(event: wire.Message) -> None:
        if event["event"] == "odd":
            raise wire.WireError("it is none of ours")
        raise UnicodeError(event["event"])

    odd = [wire.encode({"event": kind, "text": "x" * 1000}) for kind in ("odd", "bug")]
    ended = await heard(*odd * 500, listener=listener)
    assert ended == "its sandbox ended"
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert "xxx" not in caplog.text
    caplog.clear()
    kinds = [wire.encode({"event": f"bug {n}" + "y" * 1000}) for n in range(1000)]
    await heard(*kinds, b'{"event":["bug"]}', listener=listener)
    assert len(caplog.records) == 20
    assert all(len(record.getMessage()) < 150 for record in caplog.records)


@pytest.mark.parametrize("data", ["[" * 300 + "]" * 300, "[" + "[]," * wire.MOST_VALUES + "0]"])
async def test_what_would_fill_memory_or_stack_ends_the_guest(data: str) -> None:
    event = f'{{"event":"display","data":{data}}}'.encode()
    heard_of: list[wire.Message] = []
    assert "it sent what is no message" in await heard(event, listener=heard_of.append)
    assert heard_of == []


async def test_lone_surrogates_reach_nobody() -> None:
    comms, sent = Comms(), _Sent()
    event = wire.encode(opening("X")).replace(b"X", rb"\uD800")
    await heard(event, listener=lambda event: comms.say(event, sent))  # type: ignore[arg-type]
    assert comms.targets == {"\ufffd": "t"}


@pytest.mark.parametrize("escape", [rb"\uD800", rb"\udc00"])
async def test_lone_surrogates_in_long_displays_reach_nobody(escape: bytes) -> None:
    """Those that may be passed on as the guest wrote them."""
    sent: list[Any] = []

    def listener(event: wire.Message) -> None:
        shown = outcome.bundle(event)
        assert shown is not None
        sent.append(outcome.packed(event, shown) or shown["data"])

    data = b'{"text/plain":"%b%b"}' % (b"x" * wire.LONG, escape)
    rest = b',"metadata":{},"transient":{},"update":false}'
    await heard(b'{"event":"display","data":' + data + rest, listener=listener)
    assert sent == [{"text/plain": "x" * wire.LONG + "\ufffd"}]


@pytest.mark.parametrize(
    "event",
    [opening("x" * 300), opening("x", "t" * 300), opening("x") | {"buffers": [[["YQ=="]]]}],
)
def test_comms_have_short_names(event: dict[str, Any]) -> None:
    comms, sent = Comms(), _Sent()
    with pytest.raises(wire.WireError, match="no message of a comm"):
        comms.say(event, sent)  # type: ignore[arg-type]
    assert comms.targets == {}
    assert sent.kinds == []
