"""Memory files beside plain CRIU, at several sizes and kinds of heap; what guests share."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable
from typing import TypeVar

from bench import processes
from bench.sandboxes import booted, execute, spare
from bench.table import Table
from crkernel.engines import Engine, Sandbox

T = TypeVar("T")
_HEAPS = {
    "idle": ("0", 5),
    "200 MB of typed arrays": ("Array.from({ length: 200 }, typed)", 5),
    "1 GB of typed arrays": ("Array.from({ length: 1024 }, typed)", 3),
    "4 GB of typed arrays": ("Array.from({ length: 4096 }, typed)", 1),
    "1 GB of objects": ("Array.from({ length: 9e6 }, (_, i) => ({ a: i, b: 's' + i, c: [i] }))", 3),
    "1 GB of objects, after a major collection": (
        "(globalThis.gc = (require('node:v8').setFlagsFromString('--expose-gc'),"
        " require('node:vm').runInNewContext('gc')), "
        "Array.from({ length: 9e6 }, (_, i) => ({ a: i, b: 's' + i, c: [i] })))",
        3,
    ),
    "1 GB of strings": (
        "Array.from({ length: 1024 }, (_, i) => String(Buffer.alloc(1e6, 65 + i % 26)))",
        3,
    ),
    "1 GB of buffers": ("Array.from({ length: 16384 }, (_, i) => Buffer.alloc(65536, i))", 3),
}
_TYPED = "(_, i) => new Float64Array(131072).fill(i + 0.5)"
_SMALL_CHANGE = "globalThis.change = new Uint8Array(1 << 20).fill(Date.now()); globalThis.gc?.(); 0"
_STEPS = (("restore", "ms", "<= 1/15"), ("dump", "ms", "<= 1/8"), ("size", "MB", "<= 1/50"))
_CLONES = 10
_STAGING = 10 << 30
"""What the biggest heap takes at a time: its images, and the memory file that is made of them."""
_GUEST = 5 << 30


def run(n: int | None) -> list[Table]:
    """n: dumps and restores of each heap."""
    tables = [asyncio.run(_heap(kind, code, n or times)) for kind, (code, times) in _HEAPS.items()]
    return [*tables, asyncio.run(_sharing())]


async def _heap(kind: str, code: str, n: int) -> Table:
    table = Table(f"A guest: {kind}", "engine alone; baseline: plain CRIU, in the same sandbox")
    staging = _STAGING if kind.startswith("4 GB") else 0
    if staging and staging + _GUEST > processes.available():
        table.lacks("all", "crkernel", f"{(staging + _GUEST) >> 30} GiB of memory are not free")
        return table
    times: defaultdict[str, list[float]] = defaultdict(list)
    async with booted(staging=staging) as (engine, guest):
        await execute(guest, f"globalThis.typed = {_TYPED}; globalThis.heap = {code}; 0")
        for i in range(n):
            await execute(guest, _SMALL_CHANGE)
            dump = await _timed(times["plain dump"], guest.dump(f"p{i}"))
            times["plain size"].append(dump.memory / 1e6)
            async with spare(engine) as sandbox:
                await _timed(times["plain restore"], sandbox.restore(f"p{i}"))
            if i:
                await engine.drop([f"p{i - 1}"])
        await guest.dump("warm")
        await engine.drop([f"p{n - 1}"])
        await guest.end()
        await _timed(times["rebase"], engine.rebase("warm", None))
        await _timed(times["seal"], engine.verify("/memory/warm"))
        async with spare(engine) as twin:
            await twin.restore("warm")
            await twin.dump("first")
            for i in range(n):
                async with spare(engine) as sandbox:
                    await _timed(times["restore"], sandbox.restore("warm"))
                await execute(twin, _SMALL_CHANGE)
                dump = await _timed(times["dump"], twin.dump(f"m{i}"))
                times["size"].append(dump.memory / 1e6)
    for step, unit, aim in _STEPS:
        plain = times[f"plain {step}"]
        table.add(f"{step}, 1 MB changed", "plain CRIU", plain, unit)
        aim = aim if "1 GB" in kind else ""
        table.add(f"{step}, 1 MB changed", "memory file", times[step], unit, against=plain, aim=aim)
    table.add("rebase, in the background", "memory file", times["rebase"])
    table.add("reading through, in the background", "memory file", times["seal"])
    return table


async def _sharing() -> Table:
    table = Table("What guests share", f"added by restores of one checkpoint, mean of {_CLONES}")
    async with booted() as (engine, guest):
        added, own = await _clones(engine, guest, "idle")
        table.add("an idle guest", "PSS", [added], "MB", aim="<= 8 MB")
        table.add("an idle guest", "private", [own], "MB")
    async with booted() as (engine, guest):
        await execute(guest, f"globalThis.heap = Array.from({{ length: 1024 }}, {_TYPED}); 0")
        added, own = (_CLONES * each for each in await _clones(engine, guest, "big"))
        table.add(f"{_CLONES} clones of 1 GB", "PSS", [added], "MB", aim="<= 150 MB")
        table.add(f"{_CLONES} clones of 1 GB", "private", [own], "MB")
    return table


async def _clones(engine: Engine, guest: Sandbox, name: str) -> tuple[float, float]:
    """Megabytes that each clone of a checkpoint adds to the PSS of all guests, and that it has for
    itself. Before and after them stands one that is mapped like they are."""
    await guest.dump(name)
    await engine.rebase(name, None)
    await guest.end()
    sandboxes = [await engine.sandbox()]
    await sandboxes[0].restore(name)
    before = sum(map(processes.pss, _guests(engine)))
    for _ in range(_CLONES):
        sandboxes.append(await engine.sandbox())
        await sandboxes[-1].restore(name)
    guests = _guests(engine)
    added = (sum(map(processes.pss, guests)) - before) / _CLONES
    own = sum(map(processes.private, guests)) / len(guests)
    for sandbox in sandboxes:
        await sandbox.end()
    return added, own


def _guests(engine: Engine) -> list[int]:
    return [pid for pid in processes.tree(_nest(engine)) if processes.name(pid) == "node"]


def _nest(engine: Engine) -> int:
    process = engine._process  # type: ignore[attr-defined]
    return int(process.pid)


async def _timed(values: list[float], work: Awaitable[T]) -> T:
    begin = time.perf_counter()
    result = await work
    values.append(1e3 * (time.perf_counter() - begin))
    return result
