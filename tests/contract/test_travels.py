"""A checkpoint goes on in another engine: from this machine to a container, and back again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from crkernel import golden_root
from crkernel.engines import Engine, Limits, Sandbox
from crkernel.javascript import JAVASCRIPT

from .test_engine import boot, restored, run, started
from .test_memory_files import mapped
from .test_shipping import FILES, LOOK, SEEN

pytestmark = [pytest.mark.docker, pytest.mark.real("goes from one real engine to another")]


@pytest.fixture
async def here(limits: Limits) -> AsyncIterator[Engine]:
    """Sandboxes on this machine."""
    async with started(limits, "local") as engine:
        yield engine


@pytest.fixture
async def there(limits: Limits) -> AsyncIterator[Engine]:
    """Sandboxes in a container."""
    async with started(limits, "docker") as engine:
        yield engine


async def plain(engine: Engine) -> Sandbox:
    """Of a guest that was booted, in full."""
    live = await boot(engine)
    await run(live, FILES)
    await live.dump("a")
    return live


async def thinned(engine: Engine) -> Sandbox:
    """The difference to another one."""
    live = await boot(engine)
    await live.dump("base")
    await run(live, FILES)
    await live.dump("a")
    before, after = await engine.thin("a", "base")
    assert after < before / 2
    return live


async def rebased(engine: Engine) -> Sandbox:
    """With memory files."""
    twin = await mapped(engine, "root")
    await run(twin, FILES)
    await twin.dump("a")
    return twin


async def of_the_golden_root(engine: Engine) -> Sandbox:
    """Of a guest that started as kernels do."""
    root = engine.golden(golden_root.key(JAVASCRIPT, engine.limits, engine.machine))
    assert root is not None
    live = await restored(engine, root)
    await run(live, FILES)
    await live.dump("a")
    return live


@pytest.mark.parametrize("limits", [Limits.default()])  # for which the image has a golden root
@pytest.mark.parametrize("way", ["out", "in"])
@pytest.mark.parametrize("make", [plain, thinned, rebased, of_the_golden_root])
async def test_there_and_back(
    here: Engine, there: Engine, make: Callable[[Engine], Awaitable[Sandbox]], way: str
) -> None:
    first, second = (here, there) if way == "out" else (there, here)
    live = await make(first)
    count = "globalThis.n = (globalThis.n ?? 0) + 1"
    names = await second.push(first.fetch(["a"], await second.digests()))
    guest = await restored(second, names["a"])
    assert await run(guest, LOOK) == SEEN
    assert [await run(guest, count) for _ in range(2)] == ["1", "2"]
    await run(guest, "fs.writeFileSync('deep/hard', 'two')")
    await guest.dump("on")
    back = await first.push(second.fetch(["on"], await first.digests()))
    guest = await restored(first, back["on"])
    assert await run(guest, LOOK) == SEEN.replace("one", "two")
    assert await run(guest, count) == "3"
    await guest.dump("home")
    assert await run(await restored(first, "home"), count) == "4"
    assert await run(live, LOOK) == SEEN  # who stayed knows nothing of it
