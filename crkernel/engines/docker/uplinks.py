"""The way to the network of a kernel's sandboxes: one annex, in which each has its uplink."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from crkernel.engines.docker import container
from crkernel.engines.docker.annex import Annex, Neighbour
from crkernel.engines.docker.complaints import DOCTOR
from crkernel.engines.docker.stream import Frames
from crkernel.engines.nest_engine import ANOTHER_WAY
from crkernel.engines.requests import Json
from crkernel.errors import DaemonRefused, EngineError, EngineUnavailable
from crkernel.guest import wire

_OPEN_TUN = "on the daemon's machine, run: sudo modprobe tun; sudo chmod 666 /dev/net/tun"
_START_SECONDS = 20.0
_FLEETING_SECONDS = 2.0  # an annex that was lost so soon has no successor by itself


class Uplinks:
    """Of the sandboxes beside one nest. `on_unlinked` takes what the annex says of one. When their
    annex is lost another one takes over: `on_lost` is told why and what then, in words for the
    user, unless the nest is gone too, which `nest_lives` knows."""

    def __init__(
        self,
        beside: Neighbour,
        nest_lives: Callable[[], Awaitable[bool]],
        on_unlinked: Callable[[Json], None],
        on_lost: Callable[[str, str], None],
    ) -> None:
        self._beside = beside
        self._nest_lives = nest_lives
        self._on_unlinked = on_unlinked
        self._on_lost = on_lost
        self._pids: set[int] = set()  # PID 1 of each sandbox that has one
        self._starting = asyncio.Lock()
        self._annex: Annex | None = None
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Have the annex ready. Raises EngineError with the remedy."""
        async with self._starting:
            if self._annex is None:
                self._annex, frames = await self._open()
                watch = asyncio.create_task(self._listen(self._annex, frames))
                self._watches.add(watch)
                watch.add_done_callback(self._watches.discard)
                for pid in self._pids:
                    self._link(pid)

    def add(self, pid: int) -> None:
        """Connect a sandbox, until it ends; its supervisor waits for it."""
        self._pids.add(pid)
        if self._annex is not None:
            self._link(pid)

    def discard(self, pid: int) -> None:
        """The sandbox is being ended, and with it its uplink."""
        self._pids.discard(pid)

    async def end(self) -> None:
        """All of them, before the nest goes."""
        for watch in (watches := list(self._watches)):
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        annex, self._annex = self._annex, None
        if annex is not None:
            await annex.end()

    def _link(self, pid: int) -> None:
        assert self._annex is not None
        self._annex.stream.writer.write(wire.pack({"pid": pid}))

    async def _open(self) -> tuple[Annex, Frames]:
        """An annex that has said that it is ready."""
        work = {"work": "uplinks", "brings": container.TUN}
        options = container.for_uplinks(self._beside.limits)
        try:
            annex = await Annex.beside(self._beside, work, options)
        except DaemonRefused as refused:
            if container.TUN in refused.message:
                raise _no_network("has no") from refused
            raise
        frames = Frames(annex.stream)
        try:
            async with asyncio.timeout(_START_SECONDS):
                said = await frames.next()
            if said is None:
                raise EngineError(f"no guest can have a network: {await annex.why()}", hint=DOCTOR)
            if "ready" not in said:
                raise _no_network("keeps closed to users its")
        except BaseException as error:
            await annex.end()
            if isinstance(error, TimeoutError):
                slow = "the container for a network does not come up"
                raise EngineError(slow, hint=DOCTOR) from error
            raise
        return annex, frames

    async def _listen(self, annex: Annex, frames: Frames) -> None:
        """Pass on what it says, until its end."""
        began = time.monotonic()
        with contextlib.suppress(EngineError):
            while (said := await frames.next()) is not None:
                self._on_unlinked(said)
        why = await annex.why()
        await annex.end()
        self._annex = None
        if not await self._nest_lives():
            return  # which others tell
        if time.monotonic() - began < _FLEETING_SECONDS:
            self._on_lost(why, "%reset makes another")
            return
        try:
            await self.start()
        except EngineError as error:
            remedy = f" ({error.hint})" if error.hint else ""
            self._on_lost(why, f"there is no other: {error}{remedy}")
        else:
            self._on_lost(why, ANOTHER_WAY)


def _no_network(why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"no guest can have a network: the daemon's machine {why} {container.TUN}", hint=_OPEN_TUN
    )
