"""The pool in Docker: containers that were started before the kernels that will have them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable
from functools import partial

from crkernel.engines.docker import container
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.docker.stream import Frames
from crkernel.engines.limits import Limits
from crkernel.engines.pool import PATIENCE, Pool, Waiting
from crkernel.engines.requests import Json
from crkernel.errors import DaemonRefused, EngineError

_LABEL = "crkernel.pool"
_NAME = "crkernel-pool-"
_STILLBORN = 60.0  # one that was made so long ago was not started by who made it
_DISMISSAL_SECONDS = 30.0


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
    found = [one for one in await _ours(daemon, label) if one.name.startswith(_NAME)]
    return sorted(found, key=lambda one: one.age, reverse=True)


async def dismiss(daemon: Daemon, one: Waiting) -> bool:
    """Take it, as a kernel does, and let it go: one that a kernel was faster to take stays.
    Whether it has ended."""
    with contextlib.suppress(EngineError, TimeoutError):
        async with asyncio.timeout(_DISMISSAL_SECONDS):
            greeting = json.dumps({"link": "kernel"})
            stream = await daemon.run(one.id, [*container.GATE, greeting])
            with contextlib.closing(stream.writer):
                taken = await Frames(stream).next()
            if taken:
                await daemon.find("wait", one.id, condition="removed")
                return True
    return False


async def _ours(daemon: Daemon, *labels: str, **filters: str) -> list[Waiting]:
    """Containers of this user's with these labels."""
    owner = [f"{key}={value}" for key, value in container.owner().items()]
    return await _made(daemon, label=[*owner, *labels], **filters)


async def _made(daemon: Daemon, **filters: str | list[str]) -> list[Waiting]:
    return [
        Waiting(
            str(found["Id"]),
            str((found["Names"] or [""])[0]).lstrip("/"),  # one that is being removed has none
            container.short(str(found["Image"])),
            time.time() - float(found["Created"]),
        )
        for found in await daemon.ask("containers", filters=filters, all="status" in filters)
    ]


class DockerPool(Pool):
    """Of containers from `image`, for kernels that have these limits and this network."""

    def __init__(
        self,
        daemon: Daemon,
        image: str,
        limits: Limits,
        network: str,
        size: int,
        wanted: Callable[[], Json | None] = lambda: None,
    ) -> None:
        whose = sorted(container.owner().items())
        super().__init__((image, limits, network, whose), size, wanted)
        self._daemon = daemon
        self._image = image
        self._limits = limits

    async def waiting(self) -> list[Waiting]:
        """Those that this kernel may take."""
        if not self._size:
            return []
        return await waiting(self._daemon, f"{_LABEL}={self.kind}")

    async def sweep(self) -> None:
        """Containers whose image has gone, and those that were never started. Other versions of
        crkernel may be in use beside this one; their containers are theirs."""
        images = await self._daemon.ask("images")
        tags = {container.short(tag) for image in images for tag in image["RepoTags"] or []}
        for one in await waiting(self._daemon):
            if one.image not in tags:
                await dismiss(self._daemon, one)
        scratch = container.scratch_name().rpartition("-")[0]
        for one in [
            *await _ours(self._daemon, status="created"),
            *await _made(self._daemon, name=f"^/?{re.escape(scratch)}-", status="created"),
        ]:
            if one.age > _STILLBORN:
                await self._daemon.find("remove_container", one.id, force=True)

    def name(self, slot: int) -> str:
        """See there."""
        return f"{_NAME}{self.kind}-{slot}"

    async def names(self) -> set[str]:
        """Of those that wait."""
        return {one.name for one in await self.waiting()}

    async def make(self, name: str, wanted: Json | None) -> None:
        """The daemon gives a name once."""
        make = partial(container.create, self._daemon, self._image, self._limits, name)
        try:
            await make(patience=PATIENCE, labels={_LABEL: self.kind}, warm=wanted)
        except DaemonRefused as refused:
            if refused.status != 409:
                raise
