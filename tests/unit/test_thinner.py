"""In which order checkpoints are made small, and what becomes of those that cannot be."""

from __future__ import annotations

import asyncio

import pytest
import virtual_time
from fake_engine import FakeEngine
from fake_session import GROW, MB, Played

from crkernel.background import Background
from crkernel.errors import DumpRefused, EngineError, UserError
from crkernel.guest.refusals import STAGING_FULL
from crkernel.thinner import Thinner


def shrinking(play: Played) -> list[str]:
    """What was asked of the engine, oldest first."""
    return [line for line in play.engine.log if line.startswith(("thin", "rebase"))]


async def small(play: Played) -> str | None:
    """What %status says of those that are not."""
    timeline = (await play.session.status())["timeline"]
    return timeline.get("not made small")


async def test_who_is_held_keeps_nobody_else_waiting(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop("fetch")
    stream = play.session.fetch("1", "2")
    assert await anext(stream)
    await play.rest()
    assert shrinking(play) == []
    await play.cells("x = 3")
    await play.rest()
    assert shrinking(play) == ["thin c4 c1"]
    stop.go()
    assert [data async for data in stream]
    await play.rest()
    assert shrinking(play) == ["thin c4 c1", "thin c2 c1", "thin c3 c1"]


async def test_a_cell_does_not_wait_for_another_checkpoint(play: Played) -> None:
    stop = play.engine.stop("rebase")
    await play.cells(GROW)
    await stop.reached
    for size in (3, 1000, 1000, 1000, 1000):
        play.live.near.wear.add(size * MB)
    async with asyncio.timeout(1):
        await play.cells("x = 1", "x = 2")
    stop.go()
    await play.cells("x = 3")
    await play.rest()
    assert shrinking(play)[1].endswith("urgent")


async def test_a_worn_guest_comes_before_all_that_waits(play: Played) -> None:
    await play.cells("x = 1", "big = Buffer.alloc(20 << 20); 0")
    stop = play.engine.stop("thin")
    while not stop.reached.done():  # half of staging waits
        await play.cells("x = 2")
        await play.rest(0.1)
    for size in (3, 1000, 1000, 1000, 1000):
        play.live.near.wear.add(size * MB)
    await play.cells("x = 3")
    await play.rest(0.1)
    before = shrinking(play)
    stop.go()
    await play.cells("x = 4")
    assert shrinking(play)[len(before)].endswith("urgent")
    await play.rest()
    assert len(shrinking(play)) == len(play.session.timeline) - 1


async def test_a_dump_that_finds_no_room_comes_again_when_others_are_small(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    play.engine.stop("dump").fail(DumpRefused(STAGING_FULL))
    await play.cells("x = 3")
    assert shrinking(play) == ["thin c2 c1", "thin c3 c1"]
    assert play.session.timeline.get("3").reason is None
    await play.rest()
    for times in (1, 2):
        if times == 2:
            await play.cells("x = 5")
        for _ in range(times):
            play.engine.stop("dump").fail(DumpRefused(STAGING_FULL))
        await play.cells("x = 4")
        assert "staging is full" in str(
            play.session.timeline.get(play.session.timeline.head).reason
        )
        await play.rest()


async def test_what_was_dropped_hurries_nobody(play: Played) -> None:
    background = Background()
    thinner = Thinner(play.engine, background)
    thinner.add("base", None, 0, lambda *_: None)
    async with thinner.hold("big"):
        thinner.add("big", "base", play.engine.limits.staging_size // 3, lambda *_: None)
        thinner.distrust(["big"])
    thinner.add("small", "base", MB, lambda *_: None)
    await asyncio.sleep(0.3)
    assert shrinking(play) == []  # this is no pause yet
    await asyncio.sleep(0.3)
    assert shrinking(play) == ["thin small base"]
    await background.cancel()


async def test_what_failed_is_told_and_tried_again_when_there_is_room(
    play: Played,
) -> None:
    await play.cells("x = 1", GROW)
    for _ in range(2):
        play.engine.stop("thin").fail(EngineError("thin: no room"))
    play.engine.stop("rebase").fail(EngineError("rebase: no room"))
    await play.rest()
    assert await small(play) == "2, the newest is 2: rebase: no room"
    await play.cells("big = 0")
    await play.rest()
    assert await small(play) == "3, the newest is 3: thin: no room"
    del play.engine.log[:]
    await play.session.drop("1", None)
    await play.rest()
    assert shrinking(play) == ["rebase c3 None", "thin c4 c3"]
    assert await small(play) is None


async def test_a_drop_does_not_wait_for_ever(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop("fetch")
    stream = play.session.fetch("1")
    assert await anext(stream)
    with pytest.raises(UserError, match="nothing was dropped"):
        await play.session.drop("1", None)
    assert play.keys["1"] is None
    assert await play.session.rewind("1") == "1"
    stop.go()
    assert [data async for data in stream]
    await play.session.redo()
    assert (await play.session.drop("1", None))[0] == 1


async def test_what_a_restart_ends_is_done_after_it(
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    virtual_time.install(monkeypatch)
    engine.secret = b"connection"
    first = Played(engine)
    await first.session.start()
    await first.cells("x = 1", "x = 2")
    stop = engine.stop("thin")
    await stop.reached
    next_ = await first.restarted()
    await next_.rest()
    assert shrinking(next_) == ["thin c2 c1", "thin c3 c1"]
    await next_.session.close()
