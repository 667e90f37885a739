"""Work on checkpoints that comes to a bad end takes nothing with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import containers
import psutil
import pytest

from crkernel.engines import Engine, Limits
from crkernel.errors import EngineError

from .test_engine import boot, engine, restored, run, started  # noqa: F401  a fixture among them
from .test_integrity import HEAD, damage
from .test_memory_files import BIG, DIGEST, MB, SPARSE, inside, script

pytestmark = pytest.mark.real("is about children of the nest")


async def dumped(engine: Engine, heap: str) -> str:  # noqa: F811
    """A checkpoint "a" of a guest with a heap; that one's digest."""
    live = await boot(engine)
    await run(live, f"globalThis.heap = {heap}; 0")
    digest = str(await run(live, DIGEST))
    await live.dump("a")
    return digest


async def begun(
    engine: Engine,  # noqa: F811
    chore: Coroutine[Any, Any, object],
) -> tuple[asyncio.Task[object], psutil.Process]:
    """A chore of the nest's, and the child that is at it."""
    nest = containers.nest_of(engine)
    before = {child.pid for child in nest.children()}
    work = asyncio.create_task(chore)
    while not (found := [c for c in nest.children() if c.pid not in before]):
        await asyncio.sleep(0.001)
    return work, found[0]


@pytest.mark.parametrize("op", ["rebase", "thin"])
async def test_a_process_that_is_ended_at_it_leaves_nothing(
    engine: Engine,  # noqa: F811
    op: str,
) -> None:
    live = await boot(engine)
    await live.dump("base")
    await run(live, f"globalThis.heap = {SPARSE}; 0")
    digest = await run(live, DIGEST)
    await live.dump("a")
    used = (await engine.status())["staging used"]
    work, child = await begun(engine, getattr(engine, op)("a", "base"))
    await asyncio.sleep(0.02)
    child.kill()
    with pytest.raises(EngineError, match=f"{op}: its process was ended"):
        await work
    assert (await engine.status())["staging used"] <= used
    assert await run(await restored(engine, "a"), DIGEST) == digest


@pytest.mark.parametrize("heap", [SPARSE, BIG], ids=["copied", "renamed"])
async def test_whenever_a_rebase_is_ended_the_checkpoint_is_whole(
    engine: Engine,  # noqa: F811
    heap: str,
) -> None:
    digest = await dumped(engine, heap)
    for seconds in (0, 0.01, 0.03, 0.06, 0.1):
        work, child = await begun(engine, engine.rebase("a", None))
        await asyncio.sleep(seconds)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
        await asyncio.wait([work])
        if work.exception() is None:  # it was faster
            break
        guest = await restored(engine, "a")
        assert await run(guest, DIGEST) == digest, seconds
        await guest.end()
    assert await run(await restored(engine, "a"), DIGEST) == digest


async def test_whoever_is_ended_at_whichever_step_the_checkpoint_is_whole(
    engine: Engine,  # noqa: F811
) -> None:
    """The steps from which on an image is a memory file, and at one of them those that undo it."""
    digest = await dumped(engine, BIG)
    script(engine, STEPS)
    assert await run(await restored(engine, "a"), DIGEST) == digest


STEPS = """
    import os, signal, sys
    sys.path.insert(0, "/usr/lib/crkernel")
    from guest import integrity, rebase, record
    STAGING = "/run/staging"
    LOOKS = {"at", "fingerprints", "images", "opened", "read", "share_room", "_fill", "_print"}

    def ended(work, step):
        # Whether it was killed at that line, counted from the first of _take or clear.
        pid = os.fork()
        if pid:
            return os.waitpid(pid, 0)[1] == signal.SIGKILL
        count = 0
        def trace(frame, event, _):
            nonlocal count
            code = frame.f_code
            if code.co_filename not in (rebase.__file__, record.__file__):
                return None
            if code.co_name in LOOKS:
                return None
            if event == "line" and (count or code.co_name in ("_take", "clear")):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        try:
            work()
        finally:
            os._exit(0)

    def is_plain():
        integrity.expect(STAGING, "a")
        left = {"taken", "crkernel.json.new", "a.rebased"}
        assert not left & {*os.listdir(f"{STAGING}/a"), *os.listdir(STAGING)}
        assert os.path.exists(f"{STAGING}/a/pages-1.img")
        return not record.at(f"{STAGING}/a")["memory"]

    steps = 0
    while is_plain():
        steps += 1
        assert ended(lambda: rebase.rebase(STAGING, "a", None), steps)
        if steps == 20:
            assert os.path.exists(f"{STAGING}/a/taken")
            clears = 1
            while ended(lambda: rebase.clear(STAGING, "a"), clears):
                clears += 1
            assert clears > 20
        rebase.clear(STAGING, "a")
    assert steps > 20
"""


async def test_a_staging_that_fills_up_meanwhile() -> None:
    async with started(replace(Limits.default(), staging_size=440 * MB)) as small:
        digest = await dumped(small, BIG)
        script(small, FULL)
        assert await run(await restored(small, "a"), DIGEST) == digest
        await small.rebase("a", None)
        assert await run(await restored(small, "a"), DIGEST) == digest


FULL = """
    import errno, os, sys
    sys.path.insert(0, "/usr/lib/crkernel")
    from guest import rebase, record
    FILE, write = "/run/staging/other", record.write

    def late(*record):
        # Others fill staging when an image has become a memory file and a record is to be written.
        assert os.path.exists("/run/staging/a/taken")
        with open(FILE, "ab", 0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
        write(*record)

    record.write = late
    try:
        rebase.rebase("/run/staging", "a", None)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    else:
        raise AssertionError("there was room")
    os.unlink(FILE)
    assert os.listdir("/memory") == ["images"] and not os.listdir("/memory/images")
"""


async def test_the_budget_is_kept_beside_a_dump() -> None:
    async with started(replace(Limits.default(), staging_size=96 * MB)) as small:
        inside(small, "fallocate -l 90M /memory/other")
        script(small, GROWING)


GROWING = """
    import os, signal, sys
    sys.path.insert(0, "/usr/lib/crkernel")
    from guest import rebase, syscalls
    FLAGS = syscalls.MS_REMOUNT | syscalls.MS_NOSUID | syscalls.MS_NODEV

    pid = os.fork()
    while not pid:
        with open("/run/staging/other", "wb", 0) as file:
            for _ in range(3000):
                file.write(bytes(4096))
    for _ in range(500):
        syscalls.mount("none", "/run/staging", flags=FLAGS, data="size=96m")
        rebase.share_room()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@contextlib.asynccontextmanager
async def standing_still(
    engine: Engine,  # noqa: F811
    name: str,
    work: Coroutine[Any, Any, Any],
) -> AsyncIterator[None]:
    """A child of the nest at work on a checkpoint does not get on, and is killed in the end."""
    nest = containers.nest_of(engine)
    before = {child.pid for child in nest.children()}
    inside(engine, f"cd /run/staging/{name} && rm files.img && mkfifo files.img")
    task = asyncio.create_task(work)
    while not (found := [c for c in nest.children() if c.pid not in before]):
        await asyncio.sleep(0.001)
    yield
    found[0].kill()
    with pytest.raises(EngineError, match="its process was ended"):
        await task


async def test_what_cannot_be_cleared_up_ends_nothing_else(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    for name in ("a", "b"):
        await run(live, "globalThis.heap = new Uint8Array(30e6).fill(7); 0")
        await live.dump(name)
    async with standing_still(engine, "a", engine.rebase("a", None)):
        damage(engine, HEAD, "/run/staging/a/crkernel.json")
    async with standing_still(engine, "b", engine.keep_golden("b", "none")):
        await engine.drop(["b"])
    await live.dump("c")
    assert await run(await restored(engine, "c"), "heap[29999999]") == "7"


async def test_a_restart_ends_what_changes_checkpoints(limits: Limits) -> None:
    secret = b"of a connection"
    async with started(limits, secret=secret) as engine:  # noqa: F811
        digest = await dumped(engine, BIG)
        work, child = await begun(engine, engine.rebase("a", None))
        with contextlib.suppress(psutil.NoSuchProcess):  # it was faster
            child.suspend()
        left = getattr(engine, "_process", None)  # of this process, which stays here
        await engine.linger(b"what was")
    work.cancel()
    async with started(limits, secret=secret) as heir:
        assert not child.is_running()
        assert await run(await restored(heir, "a"), DIGEST) == digest
        await heir.rebase("a", None)
        assert await run(await restored(heir, "a"), DIGEST) == digest
    if left is not None:
        left.wait()
