"""The pool: containers that were started before the kernel that will have them.

They are a user's, for one image and certain limits, and have names that are given once. Every
kernel with a pool keeps it full while it runs; a container for which nobody comes ends by itself.
Which kernel gets one is up to its nest, which takes the first that comes and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from dataclasses import dataclass

from crkernel.engines.docker import container
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.limits import Limits
from crkernel.errors import DaemonRefused, EngineError

log = logging.getLogger(__name__)

PATIENCE = 3600.0
"""Seconds that one waits for a kernel."""
_LABEL = "crkernel.pool"
_NAME = "crkernel-pool-"
_DELAY = 1.0  # seconds before it is filled, so as not to slow down the first cell
_PERIOD = 300.0  # and until it is looked at again
_STILLBORN = 60.0  # one that was made so long ago was not started by who made it
_DISMISSAL_SECONDS = 10.0


@dataclass(frozen=True)
class Waiting:
    """A container of this user's that has no kernel; `age` in seconds."""

    id: str
    name: str
    image: str
    age: float


async def listed() -> list[Waiting]:
    """All that wait in the daemon in use."""
    return await waiting(await Daemon.connect())


async def empty() -> list[tuple[Waiting, bool]]:
    """Dismiss them all; which they were, and whether each has ended."""
    daemon = await Daemon.connect()
    found = await waiting(daemon)
    ended = await asyncio.gather(*(dismiss(daemon, one) for one in found))
    return list(zip(found, ended, strict=True))


async def waiting(daemon: Daemon, label: str = _LABEL) -> list[Waiting]:
    """All that wait, oldest first: that one would end first."""
    found = [one for one in await _made(daemon, [label]) if one.name.startswith(_NAME)]
    return sorted(found, key=lambda one: one.age, reverse=True)


async def dismiss(daemon: Daemon, one: Waiting) -> bool:
    """Take it, as a kernel does, and let it go: one that a kernel was faster to take stays.
    Whether it has ended."""
    with contextlib.suppress(EngineError, OSError, TimeoutError):
        async with asyncio.timeout(_DISMISSAL_SECONDS):
            greeting = json.dumps({"link": "kernel"})
            stream = await daemon.run(one.id, [*container.GATE, greeting])
            taken = await stream.read(1)
            stream.writer.close()
            if taken:
                await daemon.find("wait", one.id, condition="removed")
                return True
    return False


async def _made(daemon: Daemon, labels: list[str], status: str | None = None) -> list[Waiting]:
    owner = [f"{key}={value}" for key, value in container.owner().items()]
    filters = {"label": [*owner, *labels]} | ({"status": [status]} if status else {})
    return [
        Waiting(
            str(found["Id"]),
            str(found["Names"][0]).lstrip("/"),
            str(found["Image"]),
            time.time() - float(found["Created"]),
        )
        for found in await daemon.ask("containers", filters=filters, all=status is not None)
    ]


class Pool:
    """The part of it that is of use to one kernel."""

    def __init__(self, daemon: Daemon, image: str, limits: Limits, size: int) -> None:
        self._daemon = daemon
        self._image = image
        self._limits = limits
        self._size = size
        whose = (image, limits, sorted(container.owner().items()))
        self._kind = hashlib.sha256(repr(whose).encode()).hexdigest()[:12]
        self._ended = asyncio.Event()

    async def waiting(self) -> list[Waiting]:
        """Those that this kernel may take."""
        if not self._size:
            return []
        return await waiting(self._daemon, f"{_LABEL}={self._kind}")

    async def keep_full(self) -> None:
        """See off what is left over, and until `end` have as many wait as are wanted."""
        pause = _DELAY
        while not await self._has_ended(pause):
            try:
                await self._sweep()
                await self._fill()
            except EngineError as error:
                log.warning("the pool cannot be filled: %s", error)
            if not self._size:
                return
            pause = _PERIOD

    def end(self) -> None:
        """What is under way is done to its end, so that nothing is left half made."""
        self._ended.set()

    async def _has_ended(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        return self._ended.is_set()

    async def _sweep(self) -> None:
        """Containers whose image has gone, and those that were never started. Other versions of
        crkernel may be in use beside this one; their containers are theirs."""
        images = await self._daemon.ask("images")
        tags = {tag for image in images for tag in image["RepoTags"] or []}
        for one in await waiting(self._daemon):
            if one.image not in tags:
                await dismiss(self._daemon, one)
        for one in await _made(self._daemon, [], "created"):
            if one.age > _STILLBORN:
                await self._daemon.find("remove_container", one.id, force=True)

    async def _fill(self) -> None:
        """Kernels that do it at the same time do not do it twice: a name is given once."""
        names = [f"{_NAME}{self._kind}-{slot}" for slot in range(self._size)]
        taken = {one.name for one in await self.waiting()}
        labels = {_LABEL: self._kind}
        for name in sorted(set(names) - taken):
            if self._ended.is_set():
                return
            try:
                await container.create(
                    self._daemon, self._image, self._limits, name, patience=PATIENCE, labels=labels
                )
            except DaemonRefused as refused:
                if refused.status != 409:
                    raise
