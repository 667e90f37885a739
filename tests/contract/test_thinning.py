"""Checkpoints that were made small are the same checkpoints."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import containers
import pytest

from crkernel.engines import Engine, Limits, Sandbox
from crkernel.errors import EngineError, RestoreFailed

from .test_engine import boot, engine, restored, run  # noqa: F401  a fixture among them

pytestmark = pytest.mark.real("looks into CRIU's images")

DIGEST = """require("crypto").createHash("sha256").update(JSON.stringify(state)).digest("hex")"""


async def _grow(sandbox: Sandbox, step: int) -> str:
    """Change some of the guest's memory; a digest of all that it should hold then."""
    code = f"""globalThis.state ??= [];
    for (let i = 0; i < 2000; i++) state[(i * 7 + {step} * 311) % 9000] = {{ step: {step}, i }};
    {DIGEST}"""
    return str(await run(sandbox, code))


async def test_a_thin_checkpoint_is_small_and_whole(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("base")
    digests = {}
    for step in range(6):
        digests[f"c{step}"] = await _grow(live, step)
        await live.dump(f"c{step}")
    for name, digest in digests.items():
        before, after = await engine.thin(name, "base")
        assert after < before / 2
        assert await engine.thin(name, "base") == (before, after)  # as after a restart
        again = await restored(engine, name)
        assert await run(again, DIGEST) == digest
        assert await _grow(again, 99) != digest  # it is alive
        await again.dump(f"{name}-on")
        await again.end()
    await live.end()


async def test_what_differs_too_much_stays_as_it_is(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("base")
    await run(live, "globalThis.big = new Uint8Array(100 << 20).fill(1); 0")
    await live.dump("big")
    before, after = await engine.thin("big", "base")
    assert before == after > 100 << 20
    assert await run(await restored(engine, "big"), "big.every((x) => x === 1)") == "true"


@pytest.mark.parametrize(("name", "base"), [("none", "base"), ("base", "none"), ("thin", "other")])
async def test_what_cannot_be_thinned_is_left_alone(
    engine: Engine,  # noqa: F811
    name: str,
    base: str,
) -> None:
    live = await boot(engine)
    await live.dump("base")
    await live.dump("other")
    await run(live, "globalThis.x = 1")
    await live.dump("thin")
    await engine.thin("thin", "base")
    if (name, base) == ("base", "none"):
        before, after = await engine.thin(name, base)
        assert before == after == 0  # nothing in common
    else:
        with pytest.raises(EngineError, match="thin"):
            await engine.thin(name, base)
    for kept in ("base", "thin"):
        await (await restored(engine, kept)).end()


async def test_a_cut_base_is_noticed(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("base")
    await run(live, "globalThis.x = 1")
    await live.dump("thin")
    await engine.thin("thin", "base")
    nest = containers.nest_of(engine)
    pages = Path(f"/proc/{nest.pid}/root/run/staging/base/pages-1.img")
    os.truncate(pages, pages.stat().st_size // 2)
    with pytest.raises(RestoreFailed, match="damaged"):
        await restored(engine, "thin")
    assert await run(live, "x") == "1"


async def test_a_session_thins_in_its_pauses(session: Any) -> None:
    from crkernel.sink import IOPubSink

    nobody: Any = None  # a silent sink asks nothing of its kernel
    sink = IOPubSink(nobody, {}, silent=True)
    for count in range(1, 5):
        await session.execute(f"globalThis.x = {count}", count, sink)
    await session.settled()
    full = session.timeline.get("4").cost.memory
    async with asyncio.timeout(20):
        while session.timeline.get("4").cost.memory > full / 4:
            await asyncio.sleep(0.05)
    await session.rewind("2")
    outcome = await session.execute("x", 5, sink)
    assert outcome.result["data"]["text/plain"] == "2"


async def test_a_checkpoint_that_is_held_is_waited_for(limits: Limits) -> None:
    """Also when so much waits that there is no pause any more."""
    from crkernel.background import Background
    from crkernel.engines.local import LocalEngine
    from crkernel.thinner import Thinner

    local, background = LocalEngine(limits), Background()
    await local.start()
    thinner = Thinner(local, background)
    thinner.add("base", None, 0, lambda *_: None)
    async with thinner.hold("c1"):
        thinner.add("c1", "base", limits.staging_size, lambda *_: None)
        for _ in range(100):
            await asyncio.sleep(0)  # the loop still turns
        assert not thinner.failed
    async with asyncio.timeout(10):
        await thinner.done_with("c1")
    assert "c1" in thinner.failed  # which was tried: there is no such checkpoint
    await background.cancel()
    await local.close()
