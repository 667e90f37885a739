"""Sandboxes without a kernel around them, for measuring what the engine alone takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crkernel import golden_root
from crkernel.engines import Engine, Limits, Sandbox, open_engine
from crkernel.errors import EngineError
from crkernel.javascript import JAVASCRIPT

CHUNK_MB = 16
"""Megabytes of each array that `heap_code` makes."""


@asynccontextmanager
async def booted() -> AsyncIterator[tuple[Engine, Sandbox]]:
    """An engine of its own and a sandbox in it with a fresh guest, as a kernel starts it."""
    limits = Limits.default()
    engine = open_engine("auto", limits)
    await engine.start()
    try:
        sandbox = await engine.sandbox()
        await sandbox.warm()
        name = engine.golden(golden_root.key(JAVASCRIPT, limits, engine.machine))
        if name is None:
            print("there is no golden root: numbers are those of a guest that was booted")
            environment = dict(JAVASCRIPT.environment)
            await sandbox.boot(JAVASCRIPT.command(limits), environment, limits)
        else:
            await sandbox.restore(name)
        yield engine, sandbox
    finally:
        await engine.close()


@asynccontextmanager
async def spare(engine: Engine) -> AsyncIterator[Sandbox]:
    """A warm sandbox without a guest."""
    sandbox = await engine.sandbox()
    try:
        await sandbox.warm()
        yield sandbox
    finally:
        await sandbox.end()


def heap_code(megabytes: int) -> str:
    """A cell that fills so much memory with random bytes."""
    count, size = megabytes // CHUNK_MB, CHUNK_MB << 20
    return (
        f"globalThis.heap = Array.from({{ length: {count} }}, () => "
        f"require('crypto').randomFillSync(new Uint8Array({size}))); 0"
    )


async def execute(sandbox: Sandbox, code: str) -> None:
    """Run a cell; raises EngineError if it fails."""
    fields: dict[str, Any] = {"code": code, "cell": "1", "silent": False, "user_expressions": {}}
    reply = await sandbox.call("execute", **fields)
    if reply.get("status") != "ok":
        raise EngineError(f"a cell of the benchmark failed: {reply.get('error')}")
