"""Sandboxes without a kernel around them, for measuring what the engine alone takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from crkernel import golden_root
from crkernel.engines import Engine, Limits, Sandbox, open_engine
from crkernel.errors import EngineError
from crkernel.javascript import JAVASCRIPT

CHUNK_MB = 16
"""Megabytes of each array that `heap_code` makes."""


@asynccontextmanager
async def booted(name: str = "auto", staging: int = 0) -> AsyncIterator[tuple[Engine, Sandbox]]:
    """An engine of its own, by name, and a sandbox in it with a fresh guest, as a kernel has it;
    with at least so many bytes of `staging`."""
    limits = Limits.default()
    limits = replace(limits, staging_size=max(limits.staging_size, staging))
    engine = open_engine(name, limits)
    await engine.start()
    try:
        key = golden_root.key(JAVASCRIPT, limits, engine.machine)
        if engine.golden(key) is None:
            sandbox = await engine.sandbox()
            await sandbox.boot(JAVASCRIPT.command(limits), dict(JAVASCRIPT.environment), limits)
            await sandbox.dump("root")
            await sandbox.end()
            await engine.keep_golden("root", key)
        root = engine.golden(key)
        assert root is not None
        sandbox = await engine.sandbox()
        await sandbox.warm()
        await sandbox.restore(root)
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
