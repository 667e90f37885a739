"""Memory files beside plain CRIU, at several sizes and kinds of heap; what guests share."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable
from typing import TypeVar

from bench import processes
from bench.heaps import BIGGEST, COLLECTED, HEAPS, IDLE, MIDDLE
from bench.sandboxes import booted, execute, spare
from bench.table import Table
from crkernel.engines import Engine, Sandbox

T = TypeVar("T")
_TIMES = {IDLE: 5, "200 MB of typed arrays": 5, BIGGEST: 1}
"""Dumps and restores of each heap, if they are not three."""
_SMALL_CHANGE = "globalThis.change = new Uint8Array(1 << 20).fill(Date.now()); globalThis.gc?.(); 0"
_STEPS = (("restore", "ms", "<= 1/15"), ("dump", "ms", "<= 1/8"), ("size", "MB", "<= 1/50"))
_CLONES = 10
_STAGING = 10 << 30
"""What the biggest heap takes at a time: its images, and the memory file that is made of them."""
_GUEST = 5 << 30


def run(n: int | None) -> list[Table]:
    """n: how many dumps and restores of each heap."""
    heaps = (HEAPS | COLLECTED).items()
    tables = [asyncio.run(_heap(kind, code, n or _TIMES.get(kind, 3))) for kind, code in heaps]
    return [*tables, asyncio.run(_sharing())]


async def _heap(kind: str, code: str, n: int) -> Table:
    table = Table(f"A guest: {kind}", "engine alone; baseline: plain CRIU, in the same sandbox")
    staging = _STAGING if kind == BIGGEST else 0
    if staging and staging + _GUEST > processes.available():
        table.lacks("all", "crkernel", f"{(staging + _GUEST) >> 30} GiB of memory are not free")
        return table
    times: defaultdict[str, list[float]] = defaultdict(list)
    async with booted(staging=staging) as (engine, guest):
        await execute(guest, f"globalThis.heap = {code}; 0")
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
        await execute(guest, f"globalThis.heap = {HEAPS[MIDDLE]}; 0")
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
