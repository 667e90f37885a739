"""A sandbox that is got ready for a checkpoint: its processes wait at the threshold, with all their
memory, and nobody who comes over it can tell."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psutil
import pytest
from containers import nest_of, restorers

from crkernel.engines import Engine, Sandbox
from crkernel.errors import RestoreFailed

from .test_engine import boot, engine, run, until  # noqa: F401  a fixture among them

pytestmark = pytest.mark.real("is about processes that CRIU makes")

_FS = "process.getBuiltinModule('fs')"
_UNLINKED = (
    f"globalThis.fd = {_FS}.openSync('f', 'w+');"
    f" {_FS}.unlinkSync('f'); {_FS}.writeSync(fd, 'still'); 0"
)
_CHILD = (
    "globalThis.child = process.getBuiltinModule('child_process').spawn('cat');"
    " globalThis.answer = ''; child.stdout.on('data', (data) => { answer += data; }); 0"
)


async def dumped(engine: Engine, name: str, code: str) -> Sandbox:  # noqa: F811
    """A checkpoint of a guest that has run some code; that guest."""
    live = await boot(engine)
    await run(live, code)
    await live.dump(name)
    return live


def made(engine: Engine) -> list[int]:  # noqa: F811
    """The CRIUs that are to restore something, and what they have made."""
    return restorers(child.pid for child in nest_of(engine).children(recursive=True))


def waiting(engine: Engine) -> list[psutil.Process]:  # noqa: F811
    """The guests' processes that have not come over the threshold yet."""
    return [psutil.Process(pid) for pid in made(engine) if os.getsid(pid) == pid]


async def ready(engine: Engine, name: str) -> Sandbox:  # noqa: F811
    """A sandbox in which a process waits."""
    before = len(waiting(engine))
    sandbox = await engine.sandbox()
    await sandbox.warm()
    assert await sandbox.prepare(name)
    await until(lambda: len(waiting(engine)) > before)
    return sandbox


async def value(sandbox: Sandbox, name: str, code: str) -> Any:
    """Have a sandbox go to a checkpoint, and its guest evaluate something."""
    await sandbox.restore(name)
    return await run(sandbox, code)


async def test_its_clock_stands_still(engine: Engine) -> None:  # noqa: F811
    code = (
        "globalThis.began = performance.now();"
        " globalThis.fired = 0; setTimeout(() => { fired = performance.now(); }, 1500); 0"
    )
    await dumped(engine, "a", code)
    sandbox = await ready(engine, "a")
    await asyncio.sleep(2.0)
    assert float(await value(sandbox, "a", "performance.now() - began")) < 1400
    await asyncio.sleep(2.0)
    assert 1490 <= float(await run(sandbox, "fired - began")) < 4000


async def test_to_get_ready_twice_is_to_get_ready(engine: Engine) -> None:  # noqa: F811
    await dumped(engine, "a", "globalThis.x = 1")
    sandbox = await ready(engine, "a")
    (process,) = waiting(engine)
    assert await sandbox.prepare("a")
    assert waiting(engine) == [process]
    assert await value(sandbox, "a", "x") == "1"


async def test_nothing_is_left_of_another_one(engine: Engine) -> None:  # noqa: F811
    live = await dumped(engine, "a", "globalThis.x = 1")
    await run(live, "x = 2")
    await live.dump("b")
    sandbox = await ready(engine, "a")
    (process,) = waiting(engine)
    assert await value(sandbox, "b", "x") == "2"
    assert not process.is_running()
    assert waiting(engine) == []
    again = await ready(engine, "a")
    assert await again.prepare("b")
    assert await value(again, "a", "x") == "1"


@pytest.mark.parametrize("who", ["CRIU", "the guest"])
async def test_one_that_has_ended_is_made_up_for(engine: Engine, who: str) -> None:  # noqa: F811
    await dumped(engine, "a", "globalThis.x = 1")
    sandbox = await ready(engine, "a")
    (process,) = waiting(engine)
    (criu,) = (psutil.Process(pid) for pid in made(engine) if pid != process.pid)
    victim = process if who == "the guest" else criu
    victim.kill()
    await until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    await asyncio.sleep(0.2)  # CRIU is told
    assert await value(sandbox, "a", "x") == "1"


async def test_children_do_not_wait_there(engine: Engine) -> None:  # noqa: F811
    """They would count for the limit on processes twice."""
    await dumped(engine, "a", _CHILD)
    sandbox = await engine.sandbox()
    assert await sandbox.prepare("a")
    await asyncio.sleep(0.5)
    assert waiting(engine) == []
    await value(sandbox, "a", "child.stdin.write('hello'); 0")
    for _ in range(100):
        if (answer := await run(sandbox, "answer")) != "''":
            break
        await asyncio.sleep(0.05)
    assert answer == "'hello'"


async def test_files_without_a_name_get_none(engine: Engine) -> None:  # noqa: F811
    """CRIU makes a name for the time being, which the next one would find."""
    live = await dumped(engine, "a", _UNLINKED)
    await run(live, f"{_FS}.closeSync(fd)")
    await live.dump("b")
    sandbox = await engine.sandbox()
    assert await sandbox.prepare("a")
    await asyncio.sleep(0.5)
    assert waiting(engine) == []
    assert await value(sandbox, "b", f"{_FS}.readdirSync('.').length") == "0"
    other = await engine.sandbox()
    assert await other.prepare("a")
    assert (
        await value(other, "a", f"{_FS}.readFileSync('/proc/self/fd/' + fd, 'utf8')") == "'still'"
    )


async def test_what_is_damaged_meanwhile_does_not_come_over_it(
    engine: Engine,  # noqa: F811
) -> None:
    await dumped(engine, "a", "globalThis.x = 1")
    sandbox = await ready(engine, "a")
    (process,) = waiting(engine)
    assert await engine.drop(["a"]) > 0
    with pytest.raises(RestoreFailed):
        await sandbox.restore("a")
    assert not process.is_running()
