"""The spare: a sandbox without a guest, warmed in the background for the next rewind."""

from __future__ import annotations

import asyncio
import contextlib

from crkernel.background import Background
from crkernel.engines.base import Engine, Sandbox
from crkernel.errors import CRKernelError


class Spare:
    """Keeps one spare of an engine. Failures show when it is taken, not before."""

    def __init__(self, engine: Engine, background: Background) -> None:
        self._engine = engine
        self._background = background
        self._task: asyncio.Task[Sandbox] | None = None

    def warm(self, delay: float = 0.0) -> None:
        """Make one, in `delay` seconds, unless there is one."""
        if self._task is None:
            self._task = self._background.start(self._make(delay))

    async def take(self) -> Sandbox:
        """The warm one, or one made on the spot. Raises EngineError if there can be none."""
        task, self._task = self._task, None
        if task is not None:
            with contextlib.suppress(CRKernelError):
                sandbox = await task
                if sandbox.death is None:
                    return sandbox
                self._background.start(sandbox.end())
        return await self._engine.sandbox()

    def drop(self) -> None:
        """End it: it was made under limits that no longer hold."""
        task, self._task = self._task, None
        if task is not None:
            self._background.start(_end(task))

    async def _make(self, delay: float) -> Sandbox:
        await asyncio.sleep(delay)
        sandbox = await self._engine.sandbox()
        try:
            await sandbox.warm()
        except CRKernelError:
            self._background.start(sandbox.end())
            raise
        return sandbox


async def _end(task: asyncio.Task[Sandbox]) -> None:
    with contextlib.suppress(CRKernelError):
        await (await task).end()
