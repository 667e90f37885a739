"""What interrupts reach, and what waits for a guest that does not answer: on the fake engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_engine import FakeEngine, Stop
from fake_guest import SPIN
from fake_session import Played, two, work

from crkernel.errors import EngineError, SandboxDied


async def test_an_interrupt_during_a_rewind_harms_neither(play: Played) -> None:
    await two(play)
    stop = play.engine.stop("restore")
    going = work(play.session.rewind("1"))
    await stop.reached
    await play.session.interrupt()
    stop.go()
    assert await going == "1"
    assert await play.value() == "1"
    await play.cells("x += 1")
    assert await play.value() == "2"


async def test_an_interrupt_stops_a_cell(play: Played) -> None:
    spinning = work(play.cell(SPIN))
    await asyncio.sleep(1)
    await play.session.interrupt()
    outcome = await spinning
    assert outcome.error["interrupted"]  # type: ignore[attr-defined]
    await play.cells("x = 1")


async def interrupted(play: Played, waiting: asyncio.Future[object], dump: Stop) -> None:
    """Interrupt a cell that waits for a dump, which goes on then; nothing of it has run."""
    interrupting = work(play.session.interrupt())
    await asyncio.sleep(1)
    dump.go()
    await interrupting
    assert (await waiting).error["interrupted"]  # type: ignore[attr-defined]
    assert await play.value() == "1"


async def test_a_cell_that_still_waits_is_interrupted_before_it_begins(play: Played) -> None:
    stop = play.engine.stop("dump")
    await play.cell("x = 1")
    await stop.reached
    await interrupted(play, work(play.cell("x = 2")), stop)


async def test_a_cell_that_waits_for_the_state_before_it_to_be_kept_is_interrupted(
    play: Played,
) -> None:
    await play.cells("x = 1")
    play.live.goes_on()
    stop = play.engine.stop("dump")
    waiting = work(play.cell("x = 2"))
    await stop.reached
    await interrupted(play, waiting, stop)
    assert play.session.timeline.head == "1+1"


async def test_the_second_interrupt_ends_what_the_first_did_not_stop(play: Played) -> None:
    await play.cells("x = 1")
    spinning = work(play.cell(SPIN))
    await asyncio.sleep(1)
    play.live.goes_silent()
    first = work(play.session.interrupt())
    await play.rest(3)
    await play.session.interrupt()
    await first
    outcome = await spinning
    assert "SIGKILL" in outcome.error["message"]  # type: ignore[attr-defined]
    assert await play.value() == "1"
    assert play.keys["2"] is not None


async def test_an_interrupt_while_the_guest_is_put_back_is_meant_for_the_cell(play: Played) -> None:
    await play.cells("x = 1")
    stop = play.engine.stop("restore")
    play.live.guest_dies(signal=9)
    waiting = work(play.cell("x = 2"))
    await stop.reached
    await play.session.interrupt()
    stop.go()
    assert (await waiting).error["interrupted"]  # type: ignore[attr-defined]
    assert await play.value() == "1"


async def test_an_interrupt_before_there_is_a_guest_is_meant_for_the_cell(
    engine: FakeEngine,
) -> None:
    play = Played(engine)
    stop = engine.stop("sandbox")
    starting = work(play.session.start())
    await stop.reached
    play.session.begin_request()
    await play.session.interrupt()
    stop.go()
    await starting
    sink: Any = play.shown
    outcome = await play.session.execute("x = 1", 1, sink)
    assert outcome.error is not None
    assert outcome.error["interrupted"]
    await play.session.close()


# -- a guest that does not answer --------------------------------------------------------------


OPEN = {"msg_type": "comm_open", "content": {"comm_id": "a", "target_name": "t"}}
CLOSE = {"msg_type": "comm_close", "content": {"comm_id": "a"}}


def talk(play: Played, message: dict[str, Any]) -> asyncio.Future[object]:
    """A front end's message of a comm."""
    return work(play.session.comm(message, play.shown))  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["complete", "comm"])
async def test_the_second_interrupt_ends_a_guest_that_answers_nothing(
    play: Played, op: str
) -> None:
    await play.cells("x = 1")
    play.session.begin_request()
    play.live.goes_silent()
    asking = work(play.session.call(op)) if op == "complete" else talk(play, OPEN)
    await play.rest()
    first = work(play.session.interrupt())
    await play.rest(3)
    assert not asking.done()
    await play.session.interrupt()
    with pytest.raises(SandboxDied, match="SIGKILL"):
        await asking
    await first
    await play.rest()
    assert await play.value() == "1"


async def test_interrupts_during_a_long_dump_are_no_reason_to_end_the_guest(play: Played) -> None:
    """It has not heard yet what it is asked meanwhile."""
    stop = play.engine.stop("dump")
    await play.cell("x = 1")
    await stop.reached
    live, asking = play.live, talk(play, OPEN)
    interrupts = []
    for _ in range(3):
        interrupts.append(work(play.session.interrupt()))
        await play.rest(3)
    stop.go()
    await asyncio.gather(asking, *interrupts)
    assert await play.value() == "1"
    assert play.live is live


async def test_an_interrupt_of_before_does_not_count(play: Played) -> None:
    await play.cells("x = 1")
    await play.session.interrupt()
    await play.rest()
    live = play.live
    live.goes_silent()
    asking = talk(play, OPEN)
    await play.rest(1)
    first = work(play.session.interrupt())
    await play.rest()
    assert not asking.done()
    assert play.live is live
    for waiting in (asking, first):
        waiting.cancel()


async def test_nobody_waits_for_a_handler_that_a_rewind_calls(play: Played) -> None:
    """The front end has closed what is open in the state that comes back."""
    await talk(play, OPEN)
    await play.cells("x = 1")
    await talk(play, CLOSE)
    await play.cells("x = 2")
    await play.rest()
    stop = play.engine.stop("comm")
    assert await play.session.rewind("1") == "1"
    sandbox = await stop.reached
    stop.go()
    assert await play.value() == "1"
    assert sandbox is play.live


async def test_messages_wait_for_no_operation_that_cannot_begin(play: Played) -> None:
    await play.cells("x = 1")
    for _ in range(3):
        play.engine.stop("sandbox").fail(EngineError("no memory"))
    play.idle[0].is_lost()
    play.live.guest_dies(signal=9)
    await asyncio.sleep(1)
    with pytest.raises(SandboxDied, match="SIGKILL"):
        await talk(play, OPEN)
    await play.rest()
    assert await play.value() == "1", "by now it is mended"
    assert play.shown.closed == ["a"]
