"""What engines with a nest have in common: the nest keeps the checkpoints, and works on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from crkernel import image
from crkernel.engines.answers import Findings, Restored
from crkernel.engines.base import Engine
from crkernel.engines.limits import Limits
from crkernel.engines.pool import Pool
from crkernel.engines.requests import Json, Requests
from crkernel.engines.sandbox import Reader, Sandbox, restored
from crkernel.errors import CRKernelError

_CHUNK = 1 << 20
_LAST_SECONDS = 3.0
NO_ROOM = "the limits of all sandboxes together cannot be raised"
ANEW = "set back what was changed, or shut the kernel down and start it with that setting"
ANOTHER_WAY = "it has another one, connections out of it are reset"

log = logging.getLogger(__name__)


class Transfer(NamedTuple):
    """A stream between a child of the nest and us, and the nest's answer once that has ended."""

    reader: Reader
    writer: asyncio.StreamWriter
    answer: asyncio.Future[Json]


class NestEngine(Engine):
    """Its checkpoints lie where its nest is, whose children work on them at low priority."""

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        super().__init__(limits, secret)
        self._nest = Requests()
        self._nest.on_news = self._on_unlinked
        self._sandboxes: set[Sandbox] = set()  # or the collector takes one that works alone
        self._pool: Pool | None = None
        self._filling: asyncio.Task[None] | None = None
        self._root: str | None = None  # what kernels like this one start from, once it is there
        self._beginning = "cold"

    # -- the start, and that of kernels to come

    @abstractmethod
    def _request(self, golden: str | None = None) -> Json:
        """What a new sandbox is asked for with, that of a golden root if it is named."""

    @abstractmethod
    async def _ask_for(self, request: Json) -> tuple[Sandbox, Json]:
        """A sandbox, and the nest's answer. Raises EngineError."""

    async def sandbox(self) -> Sandbox:
        """Fork one from the nest."""
        return (await self._made(self._request()))[0]

    async def start_from(self, name: str) -> tuple[Sandbox, Restored]:
        """The first one may have waited in the nest, guest and all."""
        sandbox, answer = await self._made(self._request(name))
        if (guest := answer.get("guest")) is None:
            return sandbox, await restored(sandbox, name)
        self._beginning = "warm: a nest with a guest had waited"
        return sandbox, Restored.of(guest)

    async def _made(self, request: Json) -> tuple[Sandbox, Json]:
        sandbox, answer = await self._ask_for(request)
        sandbox.has_network = request["network"] is not None
        return sandbox, answer

    def _wanted(self) -> Json | None:
        """With what kernels like this one will ask for their first sandbox."""
        return None if self._root is None else self._request(self._root)

    def _keep_full(self, pool: Pool) -> None:
        """Not before this kernel has its own: one that it takes is replaced."""
        if self._pool is not None:
            self._pool.end()
        self._pool = pool
        self._filling = asyncio.create_task(pool.keep_full())

    async def _leave_pool(self) -> None:
        if self._pool is not None and self._filling is not None:
            self._pool.end()
            await asyncio.wait([self._filling], timeout=_LAST_SECONDS)

    # -- the way to the network

    def _on_unlinked(self, said: Json) -> None:
        """What a sandbox has its network by ended before it, and has a successor unless it had just
        come up. Where no cell has run nobody has a connection to lose."""
        again, at_work = said["again"], {one.pid for one in self._sandboxes if one.has_run}
        then = ANOTHER_WAY if again else "%reset makes another"
        if again and said["unlinked"] not in at_work:
            log.info("the way to the network of a sandbox was lost: %s; %s", said["why"], then)
        else:
            self._lose_network(said["why"], then)

    def _lose_network(self, why: str, then: str) -> None:
        self.network_lost = f"{why}; {then}"
        self.tell(f"the guest's way to the network was lost: {self.network_lost}")

    # -- checkpoints

    async def thin(self, name: str, base: str) -> tuple[int, int]:
        """See `Engine.thin`."""
        return await self._shrink("thin", name, base)

    async def rebase(self, name: str, near: str | None, *, urgent: bool = False) -> tuple[int, int]:
        """See `Engine.rebase`."""
        return await self._shrink("rebase", name, near, urgent=urgent)

    async def _shrink(
        self, op: str, name: str, base: str | None, *, urgent: bool = False
    ) -> tuple[int, int]:
        answer = await self._nest.ask(op, name=name, base=base, urgent=urgent)
        return int(answer["before"]), int(answer["after"])

    async def drop(self, names: Sequence[str]) -> int:
        """See `Engine.drop`."""
        return int((await self._nest.ask("drop", names=list(names)))["freed"])

    async def costs(self, names: Sequence[str]) -> dict[str, list[int]]:
        """See `Engine.costs`."""
        costs: dict[str, list[int]] = (await self._nest.ask("costs", names=list(names)))["costs"]
        return costs

    async def verify(self, target: str) -> Findings:
        """See `Engine.verify`."""
        answer = await self._nest.ask("verify", target=target)
        return Findings(answer["damage"], answer["needs"], answer["needed_by"])

    @abstractmethod
    async def _transfer(self, op: str, **fields: Any) -> Transfer:
        """Have the nest do something to which a stream belongs."""

    async def fetch(
        self, names: Sequence[str], known: Collection[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """See `Engine.fetch`."""
        fields = {"names": list(names), "known": list(known), "image": _image()}
        reader, writer, answer = await self._transfer("fetch", **fields)
        try:
            while data := await reader.read(_CHUNK):
                yield data
            await answer
        finally:
            await _hang_up(writer)
            with contextlib.suppress(CRKernelError):  # nobody listened to its end
                await answer

    async def push(
        self, stream: AsyncIterable[bytes], progress: Callable[[int], None] = lambda _: None
    ) -> dict[str, str]:
        """See `Engine.push`."""
        name = f"p{secrets.token_hex(6)}"
        _, writer, answer = await self._transfer("push", name=name, image=_image())
        pump = asyncio.create_task(_pump(stream, writer, progress))
        both: list[asyncio.Future[Any]] = [pump, answer]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await pump
            taken = await answer
        finally:
            pump.cancel()
            await _hang_up(writer)
            await asyncio.gather(*both, return_exceptions=True)
        for key in taken["golden"]:
            self.inherit_golden(key)
        return dict(taken["names"])

    async def digests(self) -> list[str]:
        """See `Engine.digests`."""
        return list((await self._nest.ask("digests"))["digests"])


def _image() -> str:
    """What the guests in checkpoints were made of."""
    return f"{image.recipe_digest()}-{image.code_digest()}"


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Whatever has not been sent yet: nobody would take it."""
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _pump(
    stream: AsyncIterable[bytes], writer: asyncio.StreamWriter, progress: Callable[[int], None]
) -> None:
    """All of a stream, as fast as it is taken; if that ends before, the nest's answer tells why."""
    gone = 0
    async for data in stream:
        try:
            writer.write(data)
            await writer.drain()
        except ConnectionError:
            return
        gone += len(data)
        progress(gone)
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()
