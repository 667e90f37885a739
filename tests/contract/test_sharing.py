"""Clones of a checkpoint share its memory: what each adds to what all guests take together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import containers
import pytest

from crkernel.engines import Engine, Limits

from .test_engine import boot, engine, restored, run, started  # noqa: F401  a fixture among them
from .test_mapped_guests import COLLECT, HEAP, mapped

pytestmark = pytest.mark.real("is about memory files")

MB = 10**6
CLONES = 10
IDLE = 8 * MB
"""What an idle guest may have of its own."""
BIG = 15 * MB
"""What a clone may have of its own, however big it is."""


async def _added(engine: Engine, fill: str, use: str) -> float:  # noqa: F811
    """Bytes that each clone of a guest adds once it has done something, beside one that has."""
    live = await boot(engine)
    await run(live, fill)
    await run(live, COLLECT)  # or each of them does that for itself
    first = await mapped(engine, live)
    wanted = await run(first, use)
    before = _shares(engine)
    for _ in range(CLONES):
        assert await run(await restored(engine, "a"), use) == wanted
    return (_shares(engine) - before) / CLONES


def _shares(engine: Engine) -> int:  # noqa: F811
    """Bytes that all guests take together."""
    found = containers.nest_of(engine).children(recursive=True)
    return sum(p.memory_full_info().pss for p in found if "node" in Path(p.exe()).name)


async def test_an_idle_guest_has_little_of_its_own(engine: Engine) -> None:  # noqa: F811
    assert 0 < await _added(engine, "0", "1 + 1") <= IDLE


def _typed(megabytes: int) -> str:
    return f"""globalThis.arrays = Array.from({{ length: {megabytes} }},
        (_, i) => new Float64Array(131072).fill(i)); 0"""


@pytest.mark.parametrize("fill", [_typed(200), HEAP], ids=["arrays", "objects"])
async def test_clones_share_their_memory(engine: Engine, fill: str) -> None:  # noqa: F811
    assert 0 < await _added(engine, fill, "++arrays[0][0]") <= BIG


@pytest.mark.slow
async def test_ten_clones_of_a_gigabyte(limits: Limits) -> None:
    large = replace(limits, memory=4 << 30, staging_size=6 << 30)
    async with started(large) as roomy, asyncio.timeout(120):
        assert 0 < await _added(roomy, _typed(1024), "++arrays[0][0]") <= BIG
