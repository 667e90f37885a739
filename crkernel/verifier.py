"""Reads what was restored through while nothing else happens: checkpoints, the memory files that
guests run on, the golden root; one at a time.

Before a restore there is only time for fingerprints and a sample (`guest/integrity.py`). What turns
out to be damaged is told, and nobody goes there any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

from crkernel.background import Background
from crkernel.engines.base import Engine
from crkernel.errors import CRKernelError

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 3.0
_AGAIN_SECONDS = 600.0
"""What was read through is taken for good for so long."""


class Verifier:
    """Works through what one session restored. `hold` keeps a checkpoint from being rewritten
    meanwhile; `on_damage` takes what was read, which checkpoints need it and what is wrong."""

    def __init__(
        self,
        engine: Engine,
        background: Background,
        hold: Callable[[str], AbstractAsyncContextManager[None]],
        on_damage: Callable[[str, Sequence[str], str], None],
    ) -> None:
        self._engine = engine
        self._background = background
        self._hold = hold
        self._on_damage = on_damage
        self._waiting: dict[str, None] = {}  # names of checkpoints and paths of memory files
        self._read_at: dict[str, float] = {}
        self._active_at = time.monotonic()
        self._worker: asyncio.Task[None] | None = None

    def add(self, name: str) -> None:
        """A checkpoint was restored, or has a memory file of its own now."""
        if time.monotonic() < self._read_at.get(name, -_AGAIN_SECONDS) + _AGAIN_SECONDS:
            return
        self._waiting[name] = None
        if self._worker is None:
            self._worker = self._background.start(self._work())

    def touch(self) -> None:
        """Something else happens: wait for the next pause."""
        self._active_at = time.monotonic()

    def drop(self, names: Iterable[str]) -> None:
        """Those checkpoints are gone."""
        for name in names:
            self._waiting.pop(name, None)

    def lose_all(self) -> None:
        """Staging is gone."""
        self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                while (left := self._active_at + _PAUSE_SECONDS - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                if self._waiting:
                    await self._read(next(iter(self._waiting)))
        finally:
            self._worker = None

    async def _read(self, target: str) -> None:
        async with self._hold(target):
            if target not in self._waiting:  # it was dropped meanwhile
                return
            del self._waiting[target]
            try:
                found = await self._engine.verify(target)
            except CRKernelError as error:
                log.info("%s could not be verified: %s", target, error)
                return
        self._read_at[target] = time.monotonic()
        if found.damage is not None:
            self._on_damage(target, found.needed_by, found.damage)
        for need in found.needs:
            self.add(need)
