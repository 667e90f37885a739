"""What a session makes of refusals, deaths and races: on the fake engine, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import virtual_time
from fake_engine import FakeEngine, FakeSandbox, Stop
from fake_guest import SPIN
from fake_session import GROW, LIMITS, MB, Played, two, work

from crkernel.errors import (
    CRKernelError,
    DumpRefused,
    EngineError,
    NotRestorable,
    RestoreFailed,
    SandboxDied,
    UserError,
)

NO = RestoreFailed("no way back")


# -- a rewind ----------------------------------------------------------------------------------


async def test_there_and_back(play: Played) -> None:
    await two(play)
    assert await play.session.rewind("1") == "1"
    assert await play.value() == "1"
    assert await play.session.redo() == "2"
    assert await play.value() == "2"
    await play.rest()
    assert len(play.engine.alive) == 2, "the guest and a spare"


def fail(stop: Stop, _: FakeSandbox | None) -> None:
    stop.fail(NO)


def lose(_: Stop, sandbox: FakeSandbox | None) -> None:
    assert sandbox is not None
    sandbox.is_lost()


def die(_: Stop, sandbox: FakeSandbox | None) -> None:
    assert sandbox is not None
    sandbox.guest_dies(signal=9)


@pytest.mark.parametrize("harm", [fail, lose, die])
async def test_a_rewind_that_fails_changes_nothing(
    play: Played, harm: Callable[[Stop, FakeSandbox | None], None]
) -> None:
    await two(play)
    live, keys = play.live, play.keys
    for _ in range(2):
        stop = play.engine.stop("restore")
        going = work(play.session.rewind("1"))
        harm(stop, await stop.reached)
        with pytest.raises(CRKernelError):
            await going
        assert (play.live, play.keys) == (live, keys)
        assert play.session.timeline.head == "2"
    assert await play.value() == "2"
    await play.rest()
    assert len(play.idle) == 1, "a new spare, and what failed is gone"
    assert await play.session.rewind("1") == "1"
    assert await play.value() == "1"


async def test_a_guest_at_rest_is_asked_once(play: Played) -> None:
    """Another one is called again when the state that it has come to is kept."""
    await play.cells("x = 1")
    play.live.seen.clear()
    await play.cells("x = 2")
    assert play.live.seen == ["execute", "dump"]
    play.live.goes_on()
    play.live.seen.clear()
    await play.cells("x += 1")
    assert play.live.seen == ["execute", "rested", "dump", "execute", "dump"]
    assert play.session.timeline.path("3")[-3:] == ["2", "2+1", "3"]
    assert await play.value() == "3"


@pytest.mark.parametrize("step", ["sandbox", "rested"])
async def test_a_rewind_that_cannot_begin_changes_nothing(play: Played, step: str) -> None:
    await two(play)
    live = play.live
    play.idle[0].is_lost()
    play.engine.stop(step).fail(EngineError("no more sandboxes"))
    with pytest.raises(EngineError, match="no more sandboxes"):
        await play.session.rewind("1")
    assert play.live is live
    assert await play.value() == "2"
    assert await play.session.rewind("1") == "1"


async def test_a_guest_that_dies_as_it_comes_back(play: Played) -> None:
    """It has said hello, but is no more when the session wants to move in."""
    await two(play)
    live = play.live
    stop = play.engine.stop("restore")
    going = work(play.session.rewind("1"))
    sandbox = await stop.reached
    stop.go()
    assert sandbox is not None
    while sandbox.guest is None:
        await asyncio.sleep(0)
    sandbox.guest_dies(code=0)
    with pytest.raises(SandboxDied):
        await going
    assert play.live is live
    assert await play.value() == "2"


async def test_what_nobody_waits_for_any_more_leaves_nothing(play: Played) -> None:
    await two(play)
    stop = play.engine.stop("restore")
    going = work(play.session.rewind("1"))
    await stop.reached
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    await play.rest()
    assert len(play.engine.alive) == 2
    assert await play.value() == "2"


async def test_a_spare_that_dies_while_it_is_idle_is_replaced(play: Played) -> None:
    await two(play)
    play.idle[0].is_lost()
    await play.rest()
    assert await play.session.rewind("1") == "1"
    assert await play.value() == "1"


async def test_a_spare_that_cannot_be_made_ready_is_replaced(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop("prepare").fail(NO)
    spare = await stop.reached
    await play.rest()
    assert spare is not None
    assert spare.ended
    assert [sandbox.seen for sandbox in play.idle] == [["warm"]]


async def test_a_rewind_takes_the_spare_that_is_being_made_ready(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop("prepare")
    spare = await stop.reached
    going = work(play.session.rewind("root"))
    await asyncio.sleep(1)
    stop.go()
    assert await going == "0"
    assert play.live is spare
    assert spare is not None
    assert spare.seen[:3] == ["warm", "prepare", "restore"]


async def test_a_state_that_has_gone_on_is_kept_first(play: Played) -> None:
    await two(play)
    play.live.goes_on()
    await play.session.rewind("1")
    assert list(play.keys) == ["0", "1", "2", "2+1"]
    await play.session.rewind("2+1")
    assert await play.value() == "2"


async def test_a_guest_that_dies_while_it_is_kept(play: Played) -> None:
    """Where it was to be kept is lost, but the rewind goes where it was to go."""
    await two(play)
    play.live.goes_on()
    stop = play.engine.stop("dump")
    going = work(play.session.rewind("1"))
    sandbox = await stop.reached
    assert sandbox is not None
    sandbox.guest_dies(signal=9)
    assert await going == "1"
    assert await play.value() == "1"
    await play.cell("0")
    assert "SIGKILL" in play.shown.text


# -- deaths ------------------------------------------------------------------------------------


async def test_a_death_in_a_cell(play: Played) -> None:
    await play.cells("x = 1")
    outcome = await play.cell("process.exit(3)")
    assert outcome.error is not None
    assert "code 3; the state before it (checkpoint 1)" in outcome.error["message"]
    assert await play.value() == "1"
    assert play.session.timeline.get("2").status == "died"
    with pytest.raises(NotRestorable):
        await play.session.rewind("2")


async def test_a_death_during_the_dump(play: Played) -> None:
    await play.cells("x = 1")
    stop = play.engine.stop("dump")
    assert (await play.cell("x = 2")).status == "ok"
    sandbox = await stop.reached
    assert sandbox is not None
    sandbox.guest_dies(signal=11)
    assert (await play.cell("x += 10")).status == "ok"
    assert await play.value() == "11"
    assert "SIGSEGV" in str(play.keys["2"])
    assert "SIGSEGV" in play.shown.text
    assert play.session.timeline.get("3").parent == "1"


async def test_a_death_and_two_restores_that_fail(play: Played) -> None:
    await play.cells("x = 1", "x = 2", "x = 3")
    play.engine.stop("restore").fail(NO)
    play.engine.stop("restore").fail(NO)
    outcome = await play.cell("process.abort()")
    assert outcome.error is not None
    assert "checkpoint 1) is restored" in outcome.error["message"]
    assert await play.value() == "1"


async def test_a_death_and_nothing_that_can_be_restored(play: Played) -> None:
    await play.cells("x = 1")
    for _ in range(2):
        play.engine.stop("restore").fail(NO)
    outcome = await play.cell("process.exit(0)")
    assert outcome.error is not None
    assert "a fresh guest was started" in outcome.error["message"]
    assert (await play.cell("x")).status == "error"
    await play.cells("x = 5")
    assert await play.value() == "5"
    assert await play.session.rewind("1") == "1"


async def test_no_guest_until_it_is_mended(play: Played) -> None:
    await play.cells("x = 1")
    for _ in range(3):
        play.engine.stop("sandbox").fail(EngineError("no memory"))
    play.idle[0].is_lost()
    outcome = await play.cell("process.exit(0)")
    assert outcome.error is not None
    assert "there is no guest until this is mended: no memory" in outcome.error["message"]
    assert await play.value() == "1", "by now it is"


async def test_a_death_between_two_cells(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    play.live.guest_dies(signal=9)
    await play.rest()
    assert "between cells the guest was ended by SIGKILL" in play.shown.text
    assert await play.value() == "2"
    for _ in range(2):
        play.live.guest_dies(signal=9)
        await play.rest()
    assert await play.value() == "1", "what killed it twice without a cell is part of that state"


async def test_an_engine_that_loses_all(play: Played) -> None:
    await play.cells("x = 1")
    spinning = work(play.cell(SPIN))
    await asyncio.sleep(1)
    play.engine.lose_all()
    outcome = await spinning
    assert outcome.error is not None
    assert "a fresh guest was started" in outcome.error["message"]
    with pytest.raises(NotRestorable, match="lost together with all"):
        await play.session.rewind("1")
    await play.cells("x = 7")
    assert await play.value() == "7"


# -- refused checkpoints -----------------------------------------------------------------------


async def test_a_refused_checkpoint_costs_no_result(play: Played) -> None:
    await play.cells("x = 1")
    play.engine.stop("dump").fail(DumpRefused("a socket is open"))
    await play.cells("x = 2", "x = 3")
    assert play.shown.text.count("checkpoint 2 could not be taken: a socket is open") == 1
    for going in (play.session.rewind("2"), play.session.undo()):
        with pytest.raises(NotRestorable, match="a socket"):
            await going
    assert await play.value() == "3"
    await play.session.rewind("1")
    assert await play.value() == "1"


async def test_the_same_reason_is_told_in_short(play: Played) -> None:
    for _ in range(2):
        play.engine.stop("dump").fail(DumpRefused("a socket is open"))
    await play.cells("x = 1", "x = 2", "x = 3")
    assert "checkpoint 2 could not be taken either, for the same reason" in play.shown.text
    assert play.shown.text.count("a socket is open") == 1


@pytest.mark.parametrize("engine", [FakeEngine(replace(LIMITS, staging_size=60 * MB))])
async def test_a_staging_that_is_full(play: Played) -> None:
    stop = play.engine.stop("rebase")
    await play.cells(GROW, "y = Buffer.alloc(8 << 20); 0", "x = 1")
    assert "staging is full" in str(play.keys["2"])
    assert "staging is full" in str(play.keys["3"])
    stop.go()
    await play.rest()
    assert play.engine.used < 10 * MB, "what could be made small is"
    await play.cells("x = 2")
    assert play.keys["4"] is None
    await play.session.rewind("4")
    assert await play.value() == "2"


# -- work in the pauses ------------------------------------------------------------------------


async def test_checkpoints_are_made_small_in_a_pause_and_oldest_first(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    assert play.engine.log == []
    await play.rest()
    assert [line for line in play.engine.log if "thin" in line] == ["thin c2 c1", "thin c3 c1"]


async def test_what_is_being_restored_is_not_made_small(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop("restore")
    going = work(play.session.rewind("1"))
    await stop.reached
    await play.rest()
    assert "thin c2 c1" not in play.engine.log
    stop.go()
    await going
    await play.rest()
    assert "thin c2 c1" in play.engine.log


async def test_what_is_being_made_small_is_restored_afterwards(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop("thin")
    await stop.reached
    going = work(play.session.rewind("1"))
    await asyncio.sleep(1)
    assert not any("restore" in sandbox.seen for sandbox in play.engine.alive)
    stop.go()
    assert await going == "1"


async def test_a_failure_to_make_one_small_costs_nothing(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    play.engine.stop("thin").fail(EngineError("no"))
    await play.rest()
    await play.session.rewind("1")
    assert await play.value() == "1"


async def test_a_guest_moves_into_its_twin(play: Played) -> None:
    await play.cells(GROW)
    before = play.live
    await play.rest()
    assert play.live is not before
    assert before.ended
    assert list(play.keys) == ["0", "1"]
    assert play.live.near.has_run is False


async def test_a_rewind_while_the_guest_is_replaced(play: Played) -> None:
    await play.cells("x = 1", GROW)
    stop = play.engine.stop("restore")
    twin = await stop.reached
    going = work(play.session.rewind("1"))
    await asyncio.sleep(1)
    stop.go()
    assert await going == "1"
    assert await play.value() == "1"
    await play.rest()
    assert twin is not None
    assert twin.ended
    assert len(play.engine.alive) == 2
    assert list(play.keys) == ["0", "1", "2"]


async def test_a_guest_that_goes_on_meanwhile_is_not_replaced(play: Played) -> None:
    await play.cells(GROW)
    before = play.live
    stop = play.engine.stop("restore")
    twin = await stop.reached
    before.goes_on()
    stop.go()
    await asyncio.sleep(0.4)
    assert play.live is before
    assert twin is not None
    assert twin.ended
    assert list(play.keys) == ["0", "1", "1+1"]


async def test_a_guest_that_dies_while_its_twin_comes_up(play: Played) -> None:
    await play.cells("x = 1", GROW)
    before = play.live
    stop = play.engine.stop("restore")
    twin = await stop.reached
    stop.go()
    before.guest_dies(signal=9)
    await play.rest()
    assert await play.value() == "1"
    assert twin is not None
    assert twin.ended
    assert len(play.engine.alive) == 2


async def test_a_twin_that_cannot_take_its_place_is_ended(play: Played) -> None:
    await play.cells(GROW)
    before = play.live
    stop = play.engine.stop("restore")
    twin = await stop.reached
    play.engine.stop("rested").fail(EngineError("no"))
    stop.go()
    await play.rest()
    assert play.live is before
    assert twin is not None
    assert twin.ended
    assert len(play.engine.alive) == 2


async def test_what_only_the_twin_is_to_say_is_heard_once(play: Played) -> None:
    await play.cells(GROW)
    before = play.live
    stop = play.engine.stop("restore")
    await stop.reached
    before.prints_behind_its_answer("late")
    stop.go()
    await play.rest()
    assert play.live is not before
    assert "late" not in play.shown.text


@pytest.mark.parametrize("harm", [fail, lose, die])
async def test_a_twin_that_fails_is_not_missed(
    play: Played, harm: Callable[[Stop, FakeSandbox | None], None]
) -> None:
    await play.cells("x = 1", GROW)
    before = play.live
    stop = play.engine.stop("restore")
    harm(stop, await stop.reached)
    await play.rest()
    assert play.live is before
    assert await play.value() == "1"
    assert len(play.engine.alive) == 2


async def test_what_is_damaged_is_told_and_nobody_goes_there(play: Played) -> None:
    await two(play)
    await play.session.rewind("1")
    play.engine.staging["c2"].damage = "a page differs"
    await play.rest()
    await play.cell("0")
    assert "no way leads back to 1 any more: a page differs" in play.shown.text
    with pytest.raises(NotRestorable, match="damaged"):
        await play.session.rewind("1")


async def test_a_drop_waits_for_who_needs_what_goes(play: Played) -> None:
    await play.cells("x = 1", "x = 2", "x = 3")
    stop = play.engine.stop("thin")
    await stop.reached
    dropping = work(play.session.drop("1", "2"))
    await asyncio.sleep(1)
    assert not any("drop" in line for line in play.engine.log)
    stop.go()
    count, freed, _ = await dropping  # type: ignore[misc]
    assert (count, freed > 0) == (2, True)
    await play.rest()
    with pytest.raises(NotRestorable, match="dropped"):
        await play.session.rewind("1")


async def test_a_drop_that_fails_can_be_had_again(play: Played) -> None:
    await two(play)
    play.engine.stop("drop").fail(EngineError("busy"))
    with pytest.raises(EngineError, match="busy"):
        await play.session.drop("1", None)
    assert (await play.session.drop("1", None))[0] == 1
    with pytest.raises(UserError, match="2 stays"):
        await play.session.drop("2", None)


async def test_what_travels_stays_as_it_is_meanwhile(play: Played) -> None:
    await play.cells("x = 1", "x = 2", "x = 3")
    stop = play.engine.stop("fetch")
    stream = play.session.fetch("1", "2")
    assert await anext(stream)
    await play.rest()
    assert not any(line.startswith(("thin c2", "thin c3")) for line in play.engine.log)
    dropping = work(play.session.drop("1", None))
    await play.rest(1)
    assert "drop c2" not in play.engine.log
    stop.go()
    assert [data async for data in stream]
    await dropping
    await play.rest()
    assert "drop c2" in play.engine.log
    assert any(line.startswith("thin c3") for line in play.engine.log)


async def test_a_rewind_waits_for_nobody_who_takes_its_time(play: Played) -> None:
    await play.cells("big = Buffer.alloc(80 << 20); x = 1", "x = 2")
    stop = play.engine.stop("fetch")
    stream = play.session.fetch("1")
    assert await anext(stream)
    async with asyncio.timeout(1):
        assert await play.session.rewind("1") == "1"
    assert await play.value() == "1"
    stop.go()
    assert [data async for data in stream]


async def test_what_nobody_waits_for_any_more_is_still_under_way(play: Played) -> None:
    await play.cells("big = Buffer.alloc(80 << 20); x = 1", "x = 2")
    stop = play.engine.stop("rebase")
    going = work(play.session.rewind("1"))
    await stop.reached
    going.cancel()
    going = work(play.session.rewind("1"))
    await asyncio.sleep(1)
    assert not any("restore" in sandbox.seen for sandbox in play.engine.alive)
    stop.go()
    assert await going == "1"
    assert await play.value() == "1"


async def test_who_takes_no_more_of_it_lets_go(play: Played) -> None:
    await play.cells("x = 1", "x = 2")
    stream = play.session.fetch("1")
    assert await anext(stream)
    await stream.aclose()
    assert (await play.session.drop("1", None))[0] == 1
    with pytest.raises(NotRestorable):
        await anext(play.session.fetch("1"))
    with pytest.raises(UserError):
        play.session.fetch("no such one")


async def test_checkpoints_go_on_in_another_session(play: Played) -> None:
    await two(play)
    other = FakeEngine(LIMITS)
    names = await other.push(play.session.fetch("1", "2"))
    assert [snapshot.state.variables for snapshot in other.staging.values()] == [{"x": 1}, {"x": 2}]
    assert len(set(names.values())) == 2


# -- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["dump", "restore", "thin"])
async def test_an_end_in_the_middle_of_something(play: Played, step: str) -> None:
    await play.cells("x = 1", "x = 2")
    stop = play.engine.stop(step)
    going = {
        "dump": lambda: play.cell("x = 3"),
        "restore": lambda: play.session.rewind("1"),
        "thin": play.rest,
    }[step]
    under_way = work(going())
    await stop.reached
    await play.session.close()
    assert play.engine.alive == []
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)


async def test_the_past_goes_on_after_a_restart(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    virtual_time.install(monkeypatch)
    engine.secret = b"connection"
    first = Played(engine)
    await first.session.start()
    await first.cells("x = 1", "x = 2")
    first.live.goes_on()
    next_ = await first.restarted()
    assert list(next_.keys) == ["r1.0", "r1.1", "r1.2", "r1.2+1", "0"]
    assert await next_.session.rewind("r1.1") == "r1.1"
    assert await next_.value() == "1"
    await next_.session.close()
    assert engine.alive == []
