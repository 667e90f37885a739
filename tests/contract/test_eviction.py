"""What is dropped of staging goes, but for what other checkpoints need of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crkernel.engines import Engine, Limits
from crkernel.errors import DumpRefused, EngineError, RestoreFailed

from .test_engine import boot, engine, restored, run, started  # noqa: F401  a fixture among them
from .test_memory_files import HEAP, inside, mapped

pytestmark = pytest.mark.real("looks into staging")

MB = 1 << 20
FILE = "require('fs').writeFileSync('/tmp/big', Buffer.alloc(40e6, 3)); 0"

GHOST = """{
    const { openSync, unlinkSync, writeSync } = require("fs");
    globalThis.ghost = openSync("/tmp/ghost", "w");
    unlinkSync("/tmp/ghost");
    writeSync(ghost, Buffer.alloc(70 << 20));
}"""
"""With it CRIU refuses."""


async def _used(engine: Engine) -> float:  # noqa: F811
    return float((await engine.status())["staging used"]) / MB


async def test_a_dropped_checkpoint_leaves_nothing(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("a")
    before = await _used(engine)
    await run(live, HEAP)
    await run(live, FILE)
    await live.dump("b")
    await engine.rebase("b", None)
    assert await _used(engine) > before + 100
    await run(live, "heap = 0; require('fs').unlinkSync('/tmp/big'); 0")
    await live.dump("c")
    taken = await _used(engine)
    freed = await engine.drop(["b"])
    assert freed > 100 * MB
    assert await _used(engine) == pytest.approx(taken - freed / MB, abs=1)
    with pytest.raises((RestoreFailed, EngineError)):
        await restored(engine, "b")
    assert await run(await restored(engine, "a"), "typeof heap") == "'undefined'"
    assert await run(await restored(engine, "c"), "heap") == "0"


async def test_a_memory_file_stays_as_long_as_somebody_needs_it(
    engine: Engine,  # noqa: F811
) -> None:
    twin = await mapped(engine, "a")
    await run(twin, "heap[1][1] = -1; 0")
    await twin.dump("b")
    full = await _used(engine)
    await engine.drop(["a"])
    assert await _used(engine) > full - 16  # only what "a" had in its images
    again = await restored(engine, "b")
    assert await run(again, "heap[1][1] + heap[63][9]") == "62"
    await again.end()
    await run(twin, "heap = 0")  # still maps it, as its checkpoint says
    await twin.dump("c")
    await engine.drop(["b"])
    assert await run(await restored(engine, "c"), "heap") == "0"


async def test_a_base_stays_as_long_as_there_are_differences_to_it(
    engine: Engine,  # noqa: F811
) -> None:
    live = await boot(engine)
    await run(live, FILE)
    await live.dump("base")
    await run(live, "globalThis.x = 5")
    await live.dump("a")
    before, after = await engine.thin("a", "base")
    assert after < before / 2
    await live.dump("b")
    await engine.drop(["base"])
    thin = await restored(engine, "a")
    code = "[x, require('fs').readFileSync('/tmp/big')[39999999]]"  # which "base" had brought
    assert await run(thin, code) == "[ 5, 3 ]"
    await thin.end()
    used = await _used(engine)
    await engine.drop(["a"])
    assert await _used(engine) < used - 15  # now the base goes too
    assert await run(await restored(engine, "b"), code) == "[ 5, 3 ]"


async def test_what_is_damaged_keeps_nothing_and_nobody(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    for name in ("a", "b", "c"):
        await run(live, f"require('fs').writeFileSync('/tmp/{name}', '{name}')")
        await live.dump(name)
    inside(engine, "echo '[' > /run/staging/b.tree")
    assert await engine.drop(["a"]) > 0
    code = "require('fs').readFileSync('/tmp/a', 'utf8')"  # which "a" had brought
    assert await run(await restored(engine, "c"), code) == "'a'"
    with pytest.raises(RestoreFailed, match="damaged"):
        await restored(engine, "b")
    assert await engine.drop(["b"]) > 0


async def test_names_lead_nowhere_else(engine: Engine) -> None:  # noqa: F811
    for name in ("../memory", ".", "no such one"):
        with pytest.raises(EngineError, match="drop"):
            await engine.drop([name])


async def test_any_number_of_names(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("a")
    many = [f"no-such-checkpoint-{number}" for number in range(20_000)]
    assert list(await engine.costs([*many, "a"])) == ["a"]
    with pytest.raises(EngineError, match="drop"):
        await engine.drop(many)
    assert await run(await restored(engine, "a"), "1") == "1"


async def test_what_each_takes(engine: Engine) -> None:  # noqa: F811
    twin = await mapped(engine, "a")
    images, own, shared, files = (await engine.costs(["a"]))["a"]
    assert images < 24 * MB
    assert 64 * MB <= own < 100 * MB
    assert shared == 0
    assert files < MB
    await run(twin, FILE)
    await twin.dump("b")
    found = await engine.costs(["a", "b", "no such one"])
    assert found["a"] == [images, 0, own, files]
    assert found["b"][1:3] == [0, own]
    assert 40 * 10**6 <= found["b"][3] < 40 * 10**6 + MB
    await engine.drop(["a"])
    left = await engine.costs(["a", "b"])
    assert list(left) == ["b"]
    assert left["b"][1:] == [own, 0, found["b"][3]]


async def test_what_there_are_differences_to_is_shared(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    for name in ("base", "a", "b"):
        await run(live, "globalThis.x = 5")
        await live.dump(name)
    whole = (await engine.costs(["base"]))["base"][0]
    for name in ("a", "b"):
        await engine.thin(name, "base")
    found = await engine.costs(["base", "a", "b"])
    assert found["base"][:3] == [0, 0, pytest.approx(whole, rel=0.01)]
    assert found["a"][1:3] == found["b"][1:3] == [0, found["base"][2]]
    assert found["a"][0] < whole / 4
    await engine.drop(["base"])
    await engine.drop(["b"])
    left = await engine.costs(["a", "base"])
    assert list(left) == ["a"]
    assert left["a"][1:3] == [pytest.approx(whole, rel=0.01), 0]  # which nobody else needs


async def test_a_refused_checkpoint_leaves_nothing(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("a")
    await run(live, f"{FILE}; {GHOST}")
    before = await _used(engine)
    with pytest.raises(DumpRefused, match="64 MiB"):
        await live.dump("b")
    assert await _used(engine) == pytest.approx(before, abs=1)
    await run(live, "require('fs').closeSync(ghost)")
    await live.dump("c")
    code = "require('fs').readFileSync('/tmp/big')[39999999]"
    assert await run(await restored(engine, "c"), code) == "3"


async def test_what_takes_more_than_its_budget_can_be_dropped() -> None:
    async with started(replace(Limits.default(), staging_size=96 * MB)) as small:
        live = await boot(small)
        await live.dump("a")
        await live.dump("b")
        inside(small, "fallocate -l 90M /memory/other")
        assert await small.drop(["b"]) > 0
        assert await _used(small) > 96
        assert await run(await restored(small, "a"), "1 + 1") == "2"


async def test_without_any_room_nothing_is_lost() -> None:
    async with started(replace(Limits.default(), staging_size=96 * MB)) as small:
        live = await boot(small)
        await live.dump("a")
        await run(live, "globalThis.x = 5")
        await live.dump("b")
        inside(small, "cat /dev/zero > /run/staging/other 2>/dev/null || true")
        for work in (small.rebase("b", None), small.thin("b", "a")):
            with pytest.raises(EngineError, match=r"No space left|no room"):
                await work
        with pytest.raises(DumpRefused, match="staging is full"):
            await live.dump("c")
        inside(small, "rm /run/staging/other")
        assert await run(live, "x") == "5"
        assert await run(await restored(small, "b"), "x") == "5"
        await live.dump("c")
        assert await run(await restored(small, "c"), "x") == "5"
