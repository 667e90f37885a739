"""Makes checkpoints small while nothing else happens: each becomes the difference to a full one,
and a big one's memory moves into a memory file.

A full dump of an idle guest takes 3 MB, or 20 without a golden root, and more with each cell that
touches memory; the difference to an earlier one rarely more than one.
That is work for the pauses between cells: only when half of staging waits to be made small, or one
that takes a quarter of it, is it done while cells run, and when there is no room left a checkpoint
waits for it.
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
from crkernel.errors import CRKernelError, UserError

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.5
_BIG = 24 << 20
"""Bytes from which on a checkpoint's memory moves into a memory file. A guest that was booted takes
less when it is idle, and is thinned."""
SLOW = 64 << 20
"""From so many on it takes less time to do that first and to restore it then than to restore it."""
_SHARE, _SHARE_OF_ONE, _LEFT = 2, 4, 4
"""Of staging, one in so many parts: what waits, or a single one, from which on it is done beside
cells; and what is left when the next checkpoint waits for it."""
_PATIENCE_SECONDS = 30.0
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
        self._failed: dict[str, tuple[_Job, str]] = {}  # what is as large as ever, and why
        self._bases: dict[str, str] = {}  # a checkpoint's name -> the full one it differs from
        self._mapped: dict[str, str] = {}  # ... -> the newest one before it that was rebased
        self._active_at = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._current = ""
        self._is_long = False  # what is under way may be
        self._urgent = 0  # how many wait to have a checkpoint rebased
        self._free = asyncio.Condition()
        self._held: Counter[str] = Counter()
        self._stopped = False
        self._hurried = False
        self._one_is_much = False  # whether a single one takes a lot

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
        self._one_is_much = self._one_is_much or self._takes_a_lot(size)
        self.touch()
        self._begin()

    @property
    def bases(self) -> dict[str, str]:
        """A checkpoint's name -> the full one that it is a difference to; itself if it is full."""
        return self._bases

    @property
    def pending(self) -> list[tuple[str, str, int]]:
        """What there is to do yet, or once more: name, parent and size of each."""
        failed = (job for job, _ in self._failed.values())
        return [(job.name, job.parent or "", job.size) for job in (*failed, *self._jobs)]

    @property
    def failed(self) -> dict[str, str]:
        """Why checkpoints could not be made small, by name. When others are dropped it is tried
        again."""
        return {name: why for name, (_, why) in self._failed.items()}

    @property
    def is_busy(self) -> bool:
        """Whether something is under way that may take long."""
        return bool(self._current) and self._is_long

    def lose_all(self) -> None:
        """All checkpoints are gone."""
        self._jobs.clear()
        self._failed.clear()
        self._bases.clear()
        self._count()

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
            await self._notify()

    async def done_with(self, name: str) -> None:
        """Wait until a checkpoint is as small as it gets."""
        async with self._free:
            await self._free.wait_for(
                lambda: name != self._current and all(job.name != name for job in self._jobs)
            )

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody works on any checkpoint meanwhile, or counts on its being there. Raises UserError
        where somebody does for long: a transfer lasts as long as its receiver likes."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._free:
                await self._free.wait_for(lambda: not self._current and not self._held.total())
                self._current, self._is_long = _DROPPING, True
        except TimeoutError:
            raise UserError(
                f"checkpoints have been in use for {_PATIENCE_SECONDS:.0f} s (they are being sent, "
                "or a big one is made small); nothing was dropped",
                hint="try again when that is over",
            ) from None
        try:
            yield
        finally:
            await self._release()

    async def drop(self, names: Collection[str]) -> int:
        """Take checkpoints out of staging, while `alone`; bytes that are free now. Raises
        EngineError."""
        self.distrust(names)
        freed = await self._engine.drop(list(names))
        self._try_again()
        return freed

    def distrust(self, names: Collection[str]) -> None:
        """Make nothing any more of these checkpoints, or of what they hold."""
        self._jobs = deque(job for job in self._jobs if job.name not in names)
        self._count()
        for name in names:
            self._failed.pop(name, None)
        for known in (self._bases, self._mapped):
            for name in [n for n, near in known.items() if n in names or near in names]:
                del known[name]
        self._background.start(self._notify())  # who waits for these to be done with waits no more

    async def stop(self) -> None:
        """Finish what is under way, and take up nothing more."""
        async with self._free:
            self._stopped = True
            await self._free.wait_for(lambda: not self._current)

    async def make_way(self) -> None:
        """If nearly all of staging waits to be made small, let that come first: with no room left
        nothing can be made smaller."""
        room = self._engine.limits.staging_size
        if room - self._waiting <= room // _LEFT:
            await self.catch_up(room // _SHARE)

    async def catch_up(self, rest: int = 0) -> bool:
        """Make small what waits, but for a `rest` of so many bytes, without pauses: there is no
        room. Whether anything waited."""
        async with self._free:
            self._try_again()  # a dump that was under way took the room
            if not self._jobs and not self._current:
                return False
            self._hurried = True
            self._free.notify_all()
            try:
                await self._free.wait_for(lambda: self._has_caught_up(rest))
            finally:
                self._hurried = False
        return True

    async def rebase(self, name: str) -> bool:
        """Move a checkpoint's memory into a memory file, whatever its size, before all else that
        waits; whether it is in one. What somebody holds stays as it is: who waits here keeps cells
        waiting, and a transfer lasts as long as its receiver likes."""
        async with self._free:
            await self._come_first()
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
                async with self._free:
                    await self._free.wait_for(self._may_go_on)
                    job = next((job for job in self._jobs if not self._held[job.name]), None)
                    if job is None or self._stopped:
                        return
                    self._take(job)
                await self._shrink(job, rebase=job.size >= _BIG)
        finally:
            self._worker = None

    def _begin(self) -> None:
        """There is something new to do."""
        if self._worker is None:
            self._worker = self._background.start(self._work())
        else:
            self._background.start(self._notify())

    def _try_again(self) -> None:
        """There is more room for what failed, which is older than what waits."""
        again = [job for job, _ in self._failed.values()]
        self._failed.clear()
        self._jobs.extendleft(reversed(again))
        self._count()
        if again:
            self._begin()

    async def _come_first(self) -> None:
        """Wait for what is under way, and for nothing that waits as well."""
        self._urgent += 1
        try:
            await self._free.wait_for(lambda: not self._current)
        finally:
            self._urgent -= 1
            self._free.notify_all()

    def _take(self, job: _Job) -> None:
        self._current, self._is_long = job.name, job.size >= _BIG
        self._jobs.remove(job)
        self._waiting -= job.size
        if self._takes_a_lot(job.size):
            self._count()

    def _may_go_on(self) -> bool:
        """Whether it is the turn of what waits: also if there is nothing any more."""
        free = not self._jobs or any(not self._held[job.name] for job in self._jobs)
        return free and not self._current and not self._urgent

    def _has_caught_up(self, rest: int) -> bool:
        if self._stopped or (rest and self._waiting <= rest):
            return True
        return not self._current and all(self._held[job.name] for job in self._jobs)

    async def _release(self) -> None:
        """What was under way is over."""
        self._current = ""
        await self._notify()

    async def _notify(self) -> None:
        async with self._free:
            self._free.notify_all()

    async def _pause(self) -> None:
        while not self._is_much():
            left = self._active_at + _PAUSE_SECONDS - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left), self._free:
                    await self._free.wait_for(self._is_much)

    def _count(self) -> None:
        """Anew, what else follows each job that comes or goes."""
        self._waiting = sum(job.size for job in self._jobs)
        self._one_is_much = any(self._takes_a_lot(job.size) for job in self._jobs)

    def _is_much(self) -> bool:
        """Whether so much waits that it has to be done beside cells, or somebody waits for it."""
        half = self._waiting * _SHARE >= self._engine.limits.staging_size
        return half or self._one_is_much or self._hurried

    def _takes_a_lot(self, size: int) -> bool:
        return size * _SHARE_OF_ONE >= self._engine.limits.staging_size

    async def _shrink(self, job: _Job, *, rebase: bool, urgent: bool = False) -> None:
        """Onto a memory file or a base; who is a base for others is never changed afterwards."""
        parent = self._finished(job.parent or "")
        base, near = self._bases.get(parent, job.name), self._mapped.get(parent)
        try:
            before, after = 0, 0
            if rebase:
                before, after = await self._engine.rebase(job.name, near, urgent=urgent)
            elif base != job.name:
                before, after = await self._engine.thin(job.name, base)
        except CRKernelError as error:
            log.info("checkpoint %s stays as large as it is: %s", job.name, error)
            self._failed[job.name] = job, str(error)
            return
        except asyncio.CancelledError:  # the end; after a restart it is to do yet
            self._jobs.appendleft(job)
            raise
        else:
            self._bases[job.name] = job.name
            if near is not None:
                self._mapped[job.name] = near
            if after < before:
                (self._mapped if rebase else self._bases)[job.name] = job.name if rebase else base
        finally:
            await self._release()
        if after < before:
            job.done(job.size - before + after, rebase)

    def _finished(self, name: str) -> str:
        """The nearest checkpoint from `name` upwards that will not change its form any more; others
        are held by somebody, less urgent or have failed."""
        unfinished = (*(job for job, _ in self._failed.values()), *self._jobs)
        parents = {job.name: job.parent or "" for job in unfinished}
        while name in parents:
            name = parents[name]
        return name
