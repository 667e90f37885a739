"""Has the spare made ready for where an undo, or a new run of the newest cell, would go.

Like all that can wait it is done in the pauses, and once the checkpoint will not be made smaller
any more. Whoever goes somewhere else takes the spare as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from crkernel.background import Background
from crkernel.past import Past
from crkernel.spare import Spare

_PAUSE_SECONDS = 0.5


class Ahead:
    """Looks one step ahead. `settled` waits for the checkpoint under way."""

    def __init__(
        self,
        past: Past,
        spare: Spare,
        settled: Callable[[], Awaitable[None]],
        background: Background,
    ) -> None:
        self._past = past
        self._spare = spare
        self._settled = settled
        self._background = background
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Something happens."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def go_on(self) -> None:
        """It is over; look ahead unless something else happens soon."""
        self._task = self._background.start(self._look())

    async def _look(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)
        await self._settled()
        key = self._past.before_newest
        if key is not None:
            await self._past.settled(key)
            self._task = None  # what has begun is finished: half a preparation is of no use
            await self._spare.prepare(key, lambda spare: self._past.prepare(key, spare))
