"""The spare: a sandbox without a guest, warmed in the background for the next rewind, and made
ready for the checkpoint that it most likely goes to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection

from crkernel.background import Background
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import CRKernelError

log = logging.getLogger(__name__)


class Spare:
    """Keeps one spare of an engine. Failures show when it is taken, not before."""

    def __init__(self, engine: Engine, background: Background) -> None:
        self._engine = engine
        self._background = background
        self._task: asyncio.Task[Sandbox] | None = None
        self._ready_for: str | None = None
        self._preparing = asyncio.Lock()

    @property
    def ready_for(self) -> str | None:
        """The checkpoint for which it is ready."""
        return self._ready_for

    def warm(self, delay: float = 0.0) -> None:
        """Make one, in `delay` seconds, unless there is one."""
        if self._task is None:
            self._task = self._background.start(self._make(delay))

    async def prepare(self, key: str, work: Callable[[Sandbox], Awaitable[bool]]) -> None:
        """Make it ready for a checkpoint by `work`, which tells whether it is. One with which that
        fails is replaced."""
        async with self._preparing:
            if (task := self._task) is None:
                return
            try:
                ready = await work(await asyncio.shield(task))
            except CRKernelError as error:
                log.info("no spare is ready for checkpoint %s: %s", key, error)
                if self._task is task:
                    self.drop()
                    self.warm()
            else:
                if self._task is task:
                    self._ready_for = key if ready else None

    async def leave(self, keys: Collection[str]) -> None:
        """Have nothing of these checkpoints in it: they are about to go."""
        async with self._preparing:
            if self._ready_for in keys and (task := self._give_up()) is not None:
                self.warm()
                await _end(task)

    async def take(self) -> Sandbox:
        """The warm one, or one made on the spot. Raises EngineError if there can be none."""
        task = self._give_up()
        if task is not None:
            with contextlib.suppress(CRKernelError):
                sandbox = await task
                if sandbox.death is None:
                    return sandbox
                self._background.start(sandbox.end())
        return await self._engine.sandbox()

    def drop(self) -> None:
        """End it: it is of no more use, or was made under limits that no longer hold."""
        task = self._give_up()
        if task is not None:
            self._background.start(_end(task))

    def _give_up(self) -> asyncio.Task[Sandbox] | None:
        task, self._task, self._ready_for = self._task, None, None
        return task

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
