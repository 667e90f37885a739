"""Replaces the live guest by its twin, the guest that the head's checkpoint restores.

The twin's memory is mapped from a memory file, so the checkpoints to come hold only what was
written since. Nobody sees it: the guest has done nothing since that checkpoint. A guest with a
network may have connections, which do not outlive its replacement, and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from crkernel.background import Background
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.past import Past
from crkernel.present import Present


class Twins:
    """Of one session, each of whose operations is in an `operation`; `is_busy` tells if one is."""

    def __init__(
        self,
        engine: Engine,
        past: Past,
        present: Present,
        background: Background,
        operation: Callable[[], AbstractAsyncContextManager[Sandbox]],
        is_busy: Callable[[], bool],
    ) -> None:
        self.swaps = 0
        """How often the guest was replaced."""
        self._engine = engine
        self._past = past
        self._present = present
        self._background = background
        self._operation = operation
        self._is_busy = is_busy

    # -- in a pause

    def on_rebased(self, key: str) -> None:
        """The memory of a checkpoint has moved into a memory file."""
        # Not while a cell runs: the checkpoint that it makes will be rebased as well.
        if not self._is_busy():
            self._background.start(self._swap(key))

    async def _swap(self, key: str) -> None:
        """If the guest has gone on (V8 collects garbage soon after much was allocated), where it is
        now gets a checkpoint, and one try when that is rebased."""
        async with self._operation() as live:
            if self._past.timeline.head != key or not self._may_go(live):
                return
            if await self._present.swap():
                self.swaps += 1
            elif self._past.timeline.get(key).code is not None:
                await self._present.keep()

    # -- in a row of cells

    def on_checkpoint(self, live: Sandbox) -> None:
        """A checkpoint of the guest was taken."""
        if live.wear.is_worn:
            self._background.start(self._renew())

    async def _renew(self) -> None:
        """Cells leave no pause: the head is rebased at once, and the next cell waits for that and
        for the twin. A guest that does not rest is left alone meanwhile; and so that the cell waits
        for little else, it is tried after that one where a big checkpoint is at it."""
        async with self._operation() as live:
            if not live.wear.is_worn or not self._may_go(live) or self._past.is_busy:
                return
            if not await live.rested():
                return
            live.wear.forgive()
            if await self._past.rebase(self._past.timeline.head) and await self._present.swap():
                self.swaps += 1

    def _may_go(self, live: Sandbox) -> bool:
        """Whether neither the guest has a network nor its twin, one of the guests to come."""
        return not live.has_network and self._engine.network == "none"
