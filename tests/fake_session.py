"""A session on the fake engine, with what tests ask of it."""

from __future__ import annotations

import asyncio
from typing import Any

from fake_engine import FakeEngine, FakeSandbox

from crkernel.engines import Limits
from crkernel.javascript import JAVASCRIPT
from crkernel.outcome import Audience, Outcome
from crkernel.session import Session

MB = 1 << 20
LIMITS = Limits(2048 * MB, 256, 1024 * MB, 1024 * MB, 2048 * MB)
GROW = "big = Buffer.alloc(30 << 20); 0"
"""A cell whose checkpoint is moved into a memory file."""
LONG = 60.0
"""Seconds after which all pauses are over."""


class Shown:
    """A sink for what is printed, and for comms that are closed; nothing else comes of the fake's
    guest."""

    audience = Audience()

    def __init__(self) -> None:
        self.text = ""
        self.closed: list[str] = []

    def stream(self, _name: str, text: str) -> None:
        """See `Sink.stream`."""
        self.text += text

    def comm(self, kind: str, content: dict[str, Any], *_: object) -> None:
        """See `Sink.comm`."""
        assert kind == "comm_close"
        self.closed.append(content["comm_id"])


class Played:
    """One started session. Cells are numbered from 1, as a front end's."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.session = Session(engine, JAVASCRIPT)
        self.shown = Shown()
        self._count = 0

    async def restarted(self) -> Played:
        """The session that follows this one, of a kernel with the same secret."""
        await self.session.close(restart=True)
        following = Played(FakeEngine(LIMITS, self.engine.secret))
        await following.session.start()
        return following

    async def cell(self, code: str) -> Outcome:
        """The next one, its checkpoint still under way when this returns."""
        self._count += 1
        self.session.begin_request()
        sink: Any = self.shown
        return await self.session.execute(code, self._count, sink)

    async def cells(self, *codes: str) -> None:
        """Some that must not fail, with their checkpoints."""
        for code in codes:
            assert (await self.cell(code)).status == "ok"
        await self.session.settled()

    async def value(self, expression: str = "x") -> str:
        """In the present, without a trace of the question."""
        self.session.begin_request()
        sink: Any = self.shown
        told = await self.session.execute(expression, self._count, sink, silent=True)
        assert told.result is not None, told.error
        return str(told.result["data"]["text/plain"])

    @property
    def live(self) -> FakeSandbox:
        """The one in which the guest is that cells run in."""
        (live,) = [s for s in self.engine.alive if s.near is self.session._present.live]
        return live

    @property
    def idle(self) -> list[FakeSandbox]:
        """All others: the spare, as a rule."""
        return [sandbox for sandbox in self.engine.alive if sandbox is not self.live]

    @property
    def keys(self) -> dict[str, str | None]:
        """The checkpoints, and why they cannot be restored."""
        timeline = self.session.timeline
        return {key: timeline.get(key).reason for key in timeline}

    async def rest(self, seconds: float = LONG) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)


async def two(play: Played) -> None:
    """Two checkpoints, and a spare that is ready to go to the first."""
    await play.cells("x = 1", "x = 2")
    await play.rest()


def work(what: object) -> asyncio.Future[object]:
    """Something under way."""
    return asyncio.ensure_future(what)  # type: ignore[call-overload,no-any-return]
