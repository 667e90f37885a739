"""The pool: places for sandboxes that were made ready before the kernels that will have them.

They are a user's, for one kind of kernel, and have names that are given once. Every kernel with a
pool keeps it full while it runs; a place for which nobody comes ends by itself. Which kernel gets
one is up to its nest, which takes the first that comes and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from crkernel.engines.requests import Json
from crkernel.errors import EngineError

log = logging.getLogger(__name__)

PATIENCE = 3600.0
"""Seconds that one waits for a kernel."""
TENDING = 30.0
"""Seconds between two looks of one that waits at its guest."""
_DELAY = 1.0  # seconds before it is filled, so as not to slow down the first cell
_PERIOD = 300.0  # and until it is looked at again
_LENGTH = 12


@dataclass(frozen=True)
class Waiting:
    """One of this user's that has no kernel; `age` in seconds."""

    id: str
    name: str
    image: str
    age: float


def told(count: int, what: str) -> str:
    """How full it is, in words."""
    if not count:
        return "empty, starts are cold"
    subject = f"1 {what} waits" if count == 1 else f"{count} {what}s wait"
    return f"{subject} for kernels (crkernel pool)"


class Pool(ABC):
    """The part of it that is of use to one kernel: `size` places of its `kind`. What `wanted` tells
    is the request with which such a kernel will ask for its first sandbox, if it is known."""

    def __init__(self, kind: object, size: int, wanted: Callable[[], Json | None]) -> None:
        self.kind = hashlib.sha256(repr(kind).encode()).hexdigest()[:_LENGTH]
        self._size = size
        self._wanted = wanted
        self._ended = asyncio.Event()

    async def keep_full(self) -> None:
        """See off what is left over, and until `end` have as many wait as are wanted."""
        pause = _DELAY
        while not await self._has_ended(pause):
            try:
                await self.sweep()
                if not self._size:
                    return
                await self.fill()
            except (EngineError, OSError) as error:
                if not self._size:
                    return  # nobody has asked for one
                log.warning("the pool cannot be filled: %s", error)
            pause = _PERIOD

    def end(self) -> None:
        """What is under way is done to its end, so that nothing is left half made."""
        self._ended.set()

    async def fill(self) -> None:
        """Kernels that do it at the same time do not do it twice: a name is given once."""
        taken = await self.names()
        for slot in range(self._size):
            if self._ended.is_set():
                return
            if (name := self.name(slot)) not in taken:
                await self.make(name, self._wanted())

    async def _has_ended(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        return self._ended.is_set()

    @abstractmethod
    async def sweep(self) -> None:
        """See off what is of no use to any kernel."""

    @abstractmethod
    def name(self, slot: int) -> str:
        """What the place number `slot` of our kind is called."""

    @abstractmethod
    async def names(self) -> set[str]:
        """Names that are given. Raises EngineError, OSError."""

    @abstractmethod
    async def make(self, name: str, wanted: Json | None) -> None:
        """Have a place wait, with a guest in the sandbox that is `wanted`, unless another kernel
        has taken the name meanwhile. Raises EngineError, OSError."""
