"""Checkpoints that travel to another kernel's staging are the same checkpoints there, or none."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from crkernel import golden_root
from crkernel.engines import Engine, Limits
from crkernel.errors import (
    Corrupt,
    CRKernelError,
    EngineError,
    FormatVersion,
    NoSpace,
    RestoreFailed,
)
from crkernel.javascript import JAVASCRIPT

from .test_engine import SECONDS, boot, engine, restored, run, started  # noqa: F401  a fixture among them
from .test_memory_files import DIGEST, HEAP, mapped

pytestmark = pytest.mark.real("is about the stream between nests")

MB = 1 << 20
FILES = """
const fs = require('fs');
fs.mkdirSync('deep/er', { recursive: true });
fs.writeFileSync('deep/er/f', 'one');
fs.linkSync('deep/er/f', 'deep/hard');
fs.symlinkSync('/nowhere', 'deep/soft');
fs.chmodSync('deep/er', 0o710);
fs.writeFileSync('/tmp/sparse', 'end');
fs.truncateSync('/tmp/sparse', 3e8);
globalThis.ticks = 0;
globalThis.open = fs.openSync('deep/er/f', 'r');
setInterval(() => ticks++, 20);
fs.readSync(open, Buffer.alloc(1), 0, 1, null)
"""
LOOK = """
[fs.readFileSync('deep/hard', 'utf8'), fs.readlinkSync('deep/soft'), fs.statSync('deep/er').mode,
 fs.statSync('deep/hard').nlink, fs.statSync('/tmp/sparse').size,
 fs.statSync('/tmp/sparse').blocks < 9999].join()
"""
SEEN = f"'one,/nowhere,{0o40710},2,300000000,true'"


@pytest.fixture
async def other(limits: Limits) -> AsyncIterator[Engine]:
    """The engine of another kernel."""
    async with started(limits) as other:
        yield other


async def shipped(engine: Engine, *names: str, known: tuple[str, ...] = ()) -> bytes:  # noqa: F811
    """A whole stream."""
    return b"".join([data async for data in engine.fetch(names, known)])


async def pieces(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    """A stream of what was fetched before."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def used(engine: Engine) -> int:  # noqa: F811
    """Bytes of staging."""
    return int((await engine.status())["staging used"])


@pytest.fixture
async def refused(other: Engine) -> Callable[..., Awaitable[CRKernelError]]:
    """Has a stream pushed that must not be taken, and sees that nothing stays of it."""

    async def check(stream: bytes | AsyncIterable[bytes]) -> CRKernelError:
        before = await used(other)
        with pytest.raises(CRKernelError) as caught:
            async with asyncio.timeout(SECONDS):
                await other.push(pieces(stream) if isinstance(stream, bytes) else stream)
        assert await used(other) == before
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
        return caught.value

    return check


# -- the same state ----------------------------------------------------------------------------


async def test_variables_files_and_timers(engine: Engine, other: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, FILES)
    await live.dump("a")
    told: list[int] = []
    names = await other.push(engine.fetch(["a"]), told.append)
    assert list(names) == ["a"]
    assert told == sorted(told)
    assert told[-1] > MB
    copy = await restored(other, names["a"])
    assert await run(copy, LOOK) == SEEN
    assert await run(copy, "const b = Buffer.alloc(9); fs.readSync(open, b); `${b}`[0]") == "'n'"
    ticks = await run(copy, "ticks")
    await asyncio.sleep(0.2)
    assert int(await run(copy, "ticks")) > int(ticks)
    await copy.dump("next")
    assert await run(await restored(other, "next"), LOOK) == SEEN
    assert await run(live, LOOK) == SEEN  # who stays is untouched


async def test_a_path_with_all_that_it_shares(engine: Engine, other: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    fill = (
        "head -c 20000000 /dev/zero | tr '\\\\0' '\\\\3' >/tmp/big"  # past the guest's own memory
    )
    await run(live, f'require("child_process").execSync(`{fill}`); 0')
    await live.dump("a")
    await run(live, "globalThis.x = 5")
    await live.dump("b")
    before, after = await engine.thin("b", "a")
    assert after < before / 2
    await run(live, "globalThis.x = 6; require('fs').writeFileSync('/tmp/small', 'new')")
    await live.dump("c")
    stream = await shipped(engine, "a", "b", "c")
    assert stream.count(b"\3" * MB) < 21  # what they share goes once
    names = await other.push(pieces(stream))
    look = "[globalThis.x, require('fs').readFileSync('/tmp/big')[19999999]]"
    for name, seen in (("a", "undefined, 3"), ("b", "5, 3"), ("c", "6, 3")):
        copy = await restored(other, names[name])
        assert await run(copy, look) == f"[ {seen} ]"
        await copy.end()
    full = await used(other)
    await other.drop([names["a"]])  # of which the others need nearly everything
    assert await run(await restored(other, names["b"]), look) == "[ 5, 3 ]"
    await other.drop([names["b"], names["c"]])
    assert await used(other) < full - 30 * MB


async def test_a_base_comes_along_unasked(engine: Engine, other: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("a")
    await run(live, "globalThis.x = 5")
    await live.dump("b")
    await engine.thin("b", "a")
    await engine.drop(["a"])
    before = await used(other)
    names = await other.push(engine.fetch(["b"]))
    assert list(names) == ["b"]
    copy = await restored(other, names["b"])
    assert await run(copy, "x") == "5"
    await copy.end()
    await other.drop(list(names.values()))
    assert await used(other) == pytest.approx(before, abs=MB)


async def test_memory_files(engine: Engine, other: Engine) -> None:  # noqa: F811
    twin = await mapped(engine, "a")
    await run(twin, "heap[1][1] = -1; 0")
    await twin.dump("b")
    digest = await run(twin, DIGEST)
    names = await other.push(engine.fetch(["b"]))
    assert (await other.costs(list(names.values())))[names["b"]][1] >= 64 * MB
    assert (await other.verify(names["b"])).damage is None
    copy = await restored(other, names["b"])
    assert await run(copy, DIGEST) == digest
    assert (await copy.dump("next")).memory < 24 * MB  # it is mapped here, too
    await copy.end()
    needs = (await other.verify(names["b"])).needs
    assert [(await other.verify(path)).damage for path in needs] == [None]
    await other.drop([names["b"]])
    again = await restored(other, "next")
    assert await run(again, DIGEST) == digest


async def test_there_and_back_again(engine: Engine, other: Engine) -> None:  # noqa: F811
    await mapped(engine, "a")
    there = await other.push(engine.fetch(["a"]))
    back = await engine.push(other.fetch([there["a"]]))
    assert back[there["a"]] not in ("a", there["a"])
    assert await run(await restored(engine, back[there["a"]]), "heap[63][9]") == "63"


@pytest.mark.parametrize("limits", [Limits.default()])  # for which the image has a golden root
async def test_golden_memory_goes_only_where_it_lacks(
    engine: Engine,  # noqa: F811
    other: Engine,
) -> None:
    root = engine.golden(golden_root.key(JAVASCRIPT, engine.limits, engine.machine))
    assert root is not None
    live = await restored(engine, root)
    await run(live, "globalThis.x = 7")
    await live.dump("a")
    whole = await shipped(engine, "a")
    known = tuple(await engine.digests())
    small = await shipped(engine, "a", known=known)
    assert len(small) < len(whole) / 2
    for stream in (whole, small):
        names = await other.push(pieces(stream))
        copy = await restored(other, names["a"])
        assert await run(copy, "x") == "7"
        await copy.dump("next")
        assert await run(await restored(other, "next"), "x") == "7"
        await other.drop([*names.values(), "next"])


async def test_cells_run_meanwhile(engine: Engine, other: Engine) -> None:  # noqa: F811
    twin = await mapped(engine, "a")
    moving = asyncio.create_task(other.push(engine.fetch(["a"])))
    count = 0
    while not moving.done():
        count += 1
        assert await run(twin, "6 * 7") == "42"
    assert count > 5
    assert await run(await restored(other, (await moving)["a"]), "heap[63][9]") == "63"


# -- or nothing --------------------------------------------------------------------------------


async def test_a_region_that_was_changed(
    engine: Engine,  # noqa: F811
    other: Engine,
    refused: Callable[..., Awaitable[CRKernelError]],
) -> None:
    live = await boot(engine)
    await run(live, FILES)
    await live.dump("a")
    stream = await shipped(engine, "a")
    chance = random.Random(1)
    for part in range(40):
        where = chance.randrange(part * len(stream) // 40, (part + 1) * len(stream) // 40)
        damaged = bytearray(stream)
        damaged[where] ^= 1 << chance.randrange(8)
        assert isinstance(await refused(bytes(damaged)), Corrupt | FormatVersion | NoSpace)
    for where in range(0, 600, 7):  # the header, and what follows it
        damaged = bytearray(stream)
        damaged[where] ^= 1 << chance.randrange(8)
        await refused(bytes(damaged))
    names = await other.push(pieces(stream))
    assert await run(await restored(other, names["a"]), LOOK) == SEEN


async def test_a_stream_that_was_cut(
    engine: Engine,  # noqa: F811
    refused: Callable[..., Awaitable[CRKernelError]],
) -> None:
    await mapped(engine, "a")
    stream = await shipped(engine, "a")
    chance = random.Random(2)
    for length in (0, 1, 30, *(chance.randrange(len(stream)) for _ in range(12)), len(stream) - 1):
        assert "cut" in str(await refused(stream[:length]))


async def test_a_source_that_fails(
    engine: Engine,  # noqa: F811
    other: Engine,
) -> None:
    live = await boot(engine)
    await live.dump("a")
    stream = await shipped(engine, "a")

    async def failing() -> AsyncIterator[bytes]:
        yield stream[: len(stream) // 2]
        raise LookupError("the disk is gone")

    before = await used(other)
    with pytest.raises(LookupError):
        await other.push(failing())
    assert await used(other) == before


async def test_no_room(engine: Engine, limits: Limits) -> None:  # noqa: F811
    await mapped(engine, "a")
    async with started(replace(limits, staging_size=32 * MB)) as small:
        async with contextlib.aclosing(engine.fetch(["a"])) as stream:
            with pytest.raises(NoSpace, match="staging_size"):
                await small.push(stream)
        assert await used(small) < MB


async def test_another_image(
    engine: Engine,  # noqa: F811
    refused: Callable[..., Awaitable[CRKernelError]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = await boot(engine)
    await live.dump("a")
    with monkeypatch.context() as patch:
        patch.setattr("crkernel.engines.nest_engine._image", lambda: "another")
        stream = await shipped(engine, "a")
    assert "another sandbox image" in str(await refused(stream))


async def test_what_is_no_stream(refused: Callable[..., Awaitable[CRKernelError]]) -> None:
    for data in (b"", b"PK\3\4" * 9, b"crkernel checkpoints 9\n", random.Random(3).randbytes(9999)):
        assert isinstance(await refused(data), Corrupt | FormatVersion)


async def test_what_is_not_there(engine: Engine) -> None:  # noqa: F811
    for name in ("no such one", "..", "../memory", "a/b", ".", "@0123456789abcdef"):
        with pytest.raises(EngineError, match="no checkpoint"):
            await shipped(engine, name)


async def test_nobody_listens_any_more(engine: Engine) -> None:  # noqa: F811
    await mapped(engine, "a")
    stream = engine.fetch(["a"])
    assert await anext(stream)
    async with asyncio.timeout(10):
        await stream.aclose()
    assert await run(await restored(engine, "a"), "heap[63][9]") == "63"


async def test_a_damaged_checkpoint_stays_where_it_is(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, HEAP)
    await live.dump("a")
    await live.dump("b")
    await engine.thin("b", "a")
    await engine.drop(["a", "b"])
    with pytest.raises(EngineError):
        await shipped(engine, "b")
    with pytest.raises((RestoreFailed, EngineError)):
        await restored(engine, "b")
