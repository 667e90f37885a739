"""Makes checkpoints small while nothing else happens: each becomes the difference to a full one,
and a big one's memory moves into a memory file.

A full dump of an idle guest takes 3 MB, or 20 without a golden root, and more with each cell that
touches memory; the difference to an earlier one rarely more than one.
That is work for the pauses between cells: only when a quarter of staging waits to be made small is
it done while cells run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass

from crkernel.background import Background
from crkernel.engines.base import Engine
from crkernel.errors import CRKernelError

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.5
_BIG = 24 << 20
"""Bytes from which on a checkpoint's memory moves into a memory file. A guest that was booted takes
less when it is idle, and is thinned."""
SLOW = 64 << 20
"""From so many on it takes less time to do that first and to restore it then than to restore it."""
_SHARE = 4
_DROPPING = "/"
"""No checkpoint's name: what is under way with all of them."""


@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    parent: str | None
    size: int
    done: Callable[[int, bool], None]


class Thinner:
    """Works through the checkpoints of one session, oldest first."""

    def __init__(self, engine: Engine, background: Background) -> None:
        self._engine = engine
        self._background = background
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # bytes
        self._bases: dict[str, str] = {}  # a checkpoint's name -> the full one it differs from
        self._mapped: dict[str, str] = {}  # ... -> the newest one before it that was rebased
        self._active_at = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._current = ""
        self._free = asyncio.Condition()
        self._held: Counter[str] = Counter()
        self._stopped = False

    def add(
        self, name: str, parent: str | None, size: int, done: Callable[[int, bool], None]
    ) -> None:
        """A new checkpoint of `size` bytes that followed `parent`; `done` takes what is left, and
        whether the rest went into a memory file."""
        if parent is None:
            self._bases[name] = name
            return
        self._jobs.append(_Job(name, parent, size, done))
        self._waiting += size
        self.touch()
        if self._worker is None:
            self._worker = self._background.start(self._work())

    @property
    def bases(self) -> dict[str, str]:
        """A checkpoint's name -> the full one that it is a difference to; itself if it is full."""
        return self._bases

    @property
    def pending(self) -> list[tuple[str, str, int]]:
        """What there is to do yet: name, parent and size of each."""
        return [(job.name, job.parent or "", job.size) for job in self._jobs]

    def lose_all(self) -> None:
        """All checkpoints are gone."""
        self._jobs.clear()
        self._bases.clear()
        self._waiting = 0

    def touch(self) -> None:
        """Something else happens: wait for the next pause."""
        self._active_at = time.monotonic()

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Leave a checkpoint alone while it is being restored."""
        self._held[name] += 1
        try:
            async with self._free:
                await self._free.wait_for(lambda: self._current not in (name, _DROPPING))
            yield
        finally:
            self._held[name] -= 1
            async with self._free:
                self._free.notify_all()

    async def done_with(self, name: str) -> None:
        """Wait until a checkpoint is as small as it gets."""
        async with self._free:
            await self._free.wait_for(
                lambda: name != self._current and all(job.name != name for job in self._jobs)
            )

    async def drop(self, names: Collection[str]) -> int:
        """Take checkpoints out of staging; bytes that are free now. Raises EngineError."""
        async with self._free:
            await self._free.wait_for(lambda: not self._current and not self._held.total())
            self._current = _DROPPING
        self.distrust(names)
        try:
            return await self._engine.drop(list(names))
        finally:
            async with self._free:
                self._current = ""
                self._free.notify_all()

    def distrust(self, names: Collection[str]) -> None:
        """Make nothing any more of these checkpoints, or of what they hold."""
        self._jobs = deque(job for job in self._jobs if job.name not in names)
        self._waiting = sum(job.size for job in self._jobs)
        for known in (self._bases, self._mapped):
            for name in [n for n, near in known.items() if n in names or near in names]:
                del known[name]

    async def stop(self) -> None:
        """Finish what is under way, and take up nothing more."""
        async with self._free:
            self._stopped = True
            await self._free.wait_for(lambda: not self._current)

    async def rebase(self, name: str) -> bool:
        """Move a checkpoint's memory into a memory file, whatever its size, before all else that
        waits; whether it is in one. What somebody holds stays as it is: who waits here keeps cells
        waiting, and a transfer lasts as long as its receiver likes."""
        async with self._free:
            await self._free.wait_for(lambda: not self._current)
            job = next((job for job in self._jobs if job.name == name), None)
            if job is None or self._stopped or self._held[name]:
                return self._mapped.get(name) == name
            self._take(job)
        shrinking = self._shrink(job, rebase=True, urgent=True)
        await asyncio.shield(self._background.start(shrinking))  # the nest would go on without us
        return self._mapped.get(name) == name

    async def hasten(self, name: str) -> None:
        """Have a checkpoint rebased that would take long to be restored as it is."""
        if any(job.name == name and job.size >= SLOW for job in self._jobs):
            await self.rebase(name)

    async def _work(self) -> None:
        try:
            while self._jobs:
                await self._pause()
                if not self._jobs:
                    return
                job = self._jobs[0]
                async with self._free:
                    await self._free.wait_for(lambda: self._is_free(job.name))  # noqa: B023
                    if self._stopped:
                        return
                    if job not in self._jobs:  # it was dropped, or is damaged
                        continue
                    self._take(job)
                await self._shrink(job, rebase=job.size >= _BIG)
        finally:
            self._worker = None

    def _take(self, job: _Job) -> None:
        self._current = job.name
        self._jobs.remove(job)
        self._waiting -= job.size

    def _is_free(self, name: str) -> bool:
        return not self._held[name] and not self._current

    async def _pause(self) -> None:
        while self._waiting < self._engine.limits.staging_size // _SHARE:
            left = self._active_at + _PAUSE_SECONDS - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)

    async def _shrink(self, job: _Job, *, rebase: bool, urgent: bool = False) -> None:
        """Onto a memory file or a base; who is a base for others is never changed afterwards."""
        parent = job.parent or ""
        base, near = self._bases.get(parent, job.name), self._mapped.get(parent)
        self._bases[job.name] = job.name
        if near is not None:
            self._mapped[job.name] = near
        try:
            before, after = 0, 0
            if rebase:
                before, after = await self._engine.rebase(job.name, near, urgent=urgent)
            elif base != job.name:
                before, after = await self._engine.thin(job.name, base)
        except CRKernelError as error:
            log.info("checkpoint %s stays as large as it is: %s", job.name, error)
            return
        finally:
            async with self._free:
                self._current = ""
                self._free.notify_all()
        if after < before:
            (self._mapped if rebase else self._bases)[job.name] = job.name if rebase else base
            job.done(job.size - before + after, rebase)
