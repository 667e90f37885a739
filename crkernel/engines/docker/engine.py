"""The engine: owns one container, the link to its nest, and a stream for each sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable
from typing import Any

from crkernel.engines.docker import container, images
from crkernel.engines.docker.annex import Neighbour, courier
from crkernel.engines.docker.complaints import SEE_DAEMON
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.docker.ending import Ending
from crkernel.engines.docker.pool import DockerPool
from crkernel.engines.docker.readiness import ready
from crkernel.engines.docker.stream import Frames, Stream
from crkernel.engines.docker.uplinks import Uplinks
from crkernel.engines.limits import Limits
from crkernel.engines.nest_engine import ANEW, NO_ROOM, NestEngine, Transfer
from crkernel.engines.requests import Json
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import CRKernelError, EngineError
from crkernel.guest import golden, linger, processor, wire

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_LAST_SECONDS = 3.0


class DockerEngine(NestEngine):
    """Sandboxes of one kernel, in a container of its own."""

    name = "docker"
    networks = ("none", "full")

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        self._memory: int | None = None  # bytes that the daemon's machine has
        super().__init__(limits, secret)
        self._daemon: Daemon | None = None
        self._container = ""
        self._roomy: Limits | None = None  # those for which the container has room
        self._nest_pid = 0  # as its container sees it
        self._stream: Stream | None = None  # to the nest
        self._listener: asyncio.Task[None] | None = None
        self._ending: Ending | None = None
        self._lost = ""  # how the container came to its end, if it did
        self._golden: set[str] = set()
        self._machine = processor.identity()
        self._token = secrets.token_hex(8)  # what all our gates say
        self._parking: asyncio.Future[tuple[str, Stream]] | None = None
        self._uplinks: Uplinks | None = None  # of the sandboxes of this nest
        self._chores: set[asyncio.Task[Any]] = set()

    # -- life

    async def start(self) -> bytes | None:
        """Start a container, or take over the one that waits, unless there is one already."""
        if self._stream is not None:
            return None
        self._beginning, self._roomy = "cold", None
        daemon = self._daemon = self._daemon or await Daemon.connect()
        image, info = await asyncio.gather(images.require(daemon), daemon.info())
        self._memory = int(info["MemTotal"])
        self.limits = self._limits
        limits = self.limits  # which may change meanwhile
        pool = DockerPool(daemon, image, limits, self.network, self.pool, self._wanted)
        if self.secret and (state := await self._take_over(image)) is not None:
            self._keep_full(pool)
            return state
        if not await self._claim(pool):
            name = self._name()
            self._container = await container.succeed(daemon, image, limits, name)
            try:
                await self._connect()
            except BaseException:
                await self._remove()
                raise
        self._roomy = limits
        self._keep_full(pool)
        return None

    async def _claim(self, pool: DockerPool) -> bool:
        """Take a container that waits, if there is one."""
        for one in await pool.waiting():
            self._container = one.id
            try:
                await self._connect()
            except CRKernelError:
                self._container = ""
                continue  # another kernel was faster, or its time was up
            self._chore(self._christen())
            self._beginning = "warm: a container had waited"
            return True
        return False

    async def _christen(self) -> None:
        """Give a container that was claimed the name by which the next kernel finds it."""
        assert self._daemon is not None
        try:
            await self._daemon.ask("rename", self._container, self._name())
        except EngineError as error:
            log.warning("a restart would not keep the past: %s", error)

    # -- the link to the nest

    def _name(self) -> str:
        """Where the kernel that follows this one will look for the container."""
        if not self.secret:
            return f"crkernel-{secrets.token_hex(16)}"
        return linger.address(self.secret).decode().lstrip("\0")

    async def _take_over(self, image: str) -> bytes | None:
        """What the kernel before left in its container, if that waits for us."""
        assert self.secret is not None
        self._container = self._name()
        try:
            stream = await self._gate(link="kernel", token=linger.token(self.secret).decode())
            hello = await self._hello(stream)
        except CRKernelError:  # there is none, or it is just ending
            self._container = ""
            return None
        left, _, state = str(hello.get("state", "")).partition("\n")
        if state and left == image:
            self._beginning = "the nest of before the restart"
            return state.encode()
        if state:
            log.warning("the sandbox image is a new one: the past of before the restart is gone")
        await self._stop_listening()  # or its end would be taken for that of the next
        await self._remove()
        return None

    async def _gate(self, **greeting: str) -> Stream:
        assert self._daemon is not None
        said = json.dumps({**greeting, "kernel": self._token})
        return await self._daemon.run(self._container, [*container.GATE, said])

    async def _park(self) -> tuple[str, Stream]:
        """A stream for a sandbox to come, and the ticket by which the nest will know it."""
        ticket = secrets.token_hex(8)
        return ticket, await self._gate(link="sandbox", ticket=ticket)

    async def _connect(self) -> None:
        """Open the link to the nest, and the stream of the first sandbox beside it: a docker exec
        takes longer than anything else here."""
        self._parking = asyncio.ensure_future(self._park())
        try:
            await self._hello(await self._gate(link="kernel"))
        except BaseException:
            await self._unpark()
            raise

    async def _unpark(self) -> None:
        parking, self._parking = self._parking, None
        if parking is not None:
            with contextlib.suppress(EngineError):
                (await parking)[1].writer.close()

    async def _hello(self, stream: Stream) -> wire.Message:
        """Wait until the nest is ready, then listen to it."""
        assert self._daemon is not None
        frames = Frames(stream)
        try:
            hello = await ready(frames, _START_SECONDS)
        except BaseException:
            stream.writer.close()
            raise
        self._lost = ""
        self._stream = stream
        self._nest_pid = int(hello["pid"])
        self._golden = set(hello["golden"])
        self._machine = list(hello["machine"])
        self._nest.connect(lambda request, _: stream.writer.write(wire.pack(request)))
        self._ending = Ending(self._daemon, self._container)
        self._listener = asyncio.create_task(self._listen(frames, self._ending))
        self._uplinks = Uplinks(
            self._beside(), self._nest_lives, self._on_unlinked, self._lose_network
        )
        return hello

    async def _listen(self, frames: Frames, ending: Ending) -> None:
        """Pass on what the nest answers, until it ends; then find out why it did."""
        with contextlib.suppress(EngineError):
            while (message := await frames.next()) is not None:
                self._nest.deliver(message)
        self._lost = await ending.why()
        self._disconnect(self._lost)
        self._chore(self._remove())

    def _disconnect(self, why: str) -> None:
        if self._stream is not None:
            self._stream.writer.close()
            self._stream = None
        self._nest.hang_up(EngineError(why, hint="restart the kernel"))

    @property
    def limits(self) -> Limits:
        """With defaults that suit the daemon's machine, once that is known."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits if self._memory is None else limits.on(self._memory)

    @property
    def lost(self) -> bool:
        """The container has ended with all that was in it; `start` makes a new one."""
        return bool(self._lost)

    async def linger(self, state: bytes) -> None:
        """Leave the container to the next kernel."""
        if not self.secret:
            raise EngineError("this kernel's connection has no key to know the next kernel by")
        left = f"{images.code_tag()}\n{state.decode()}"
        if self._uplinks is not None:
            await self._uplinks.end()
        await self._nest.ask("linger", token=linger.token(self.secret).decode(), state=left)
        self._container = ""
        await self._stop_listening()

    async def close(self) -> None:
        """Remove the container, which takes everything along."""
        leaving = asyncio.ensure_future(self._leave_pool())
        await self._unpark()
        await self._stop_listening()
        for sandbox in list(self._sandboxes):
            await sandbox.end()
        await self._remove()
        await asyncio.wait([leaving, *self._chores], timeout=_LAST_SECONDS)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        if self._ending is not None:
            await self._ending.forget()
        self._disconnect("the nest is gone")

    async def _remove(self) -> None:
        """With its annex, which ends with it."""
        name, self._container = self._container, ""
        uplinks, self._uplinks = self._uplinks, None
        if name and self._daemon is not None:
            await container.remove(self._daemon, name)
        if uplinks is not None:
            await uplinks.end()

    def _chore(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # -- sandboxes

    async def make_room(self) -> None:
        """By the container's own limits, which a kernel before this one may have set."""
        limits = self.limits
        if self._roomy == limits:
            return
        assert self._daemon is not None
        try:
            await container.enlarge(self._daemon, self._container, limits)
        except EngineError as error:
            raise EngineError(f"{NO_ROOM}: {error}", hint=ANEW) from error
        self._roomy = limits

    def _request(self, golden: str | None = None) -> Json:
        """See there. Where the way to the network leads, an annex knows."""
        network = True if self.network == "full" else None
        return {"disk": self.limits.disk_size, "network": network, "golden": golden}

    def _wanted(self) -> Json | None:
        """A guest with a network cannot come up before there is an annex."""
        return None if self.network == "full" else super()._wanted()

    async def _ask_for(self, request: Json) -> tuple[Sandbox, Json]:
        """It gets a stream of its own."""
        uplinks = self._uplinks if request["network"] else None
        if uplinks is not None:
            await uplinks.start()
        parking, self._parking = self._parking, None
        stream, asked = await self._ask_with_stream("sandbox", parking or self._park(), **request)
        try:
            answer = await asked
        except BaseException:
            stream.writer.close()
            raise
        pid, listener = int(answer["pid"]), self._listener
        if uplinks is not None:
            uplinks.add(pid)

        async def end() -> None:
            self._sandboxes.discard(sandbox)
            if uplinks is not None:
                uplinks.discard(pid)
            if self._listener is not listener:
                return  # it went with its nest: another one's process has that number now
            with contextlib.suppress(EngineError):  # the nest is gone, and with it the sandbox
                await self._nest.ask("end", pid=pid)

        sandbox = Sandbox(stream, stream.writer, end, self._why, pid)
        self._sandboxes.add(sandbox)
        return sandbox, answer

    async def _ask_with_stream(
        self, op: str, parking: Awaitable[tuple[str, Stream]], **fields: Any
    ) -> tuple[Stream, asyncio.Future[wire.Message]]:
        ticket, stream = await parking
        try:
            async with asyncio.timeout(_START_SECONDS):
                parked = await Frames(stream).next()
            if parked is None:
                raise EngineError(await self._why())
            return stream, self._nest.begin(op, ticket=ticket, **fields)
        except BaseException as error:
            stream.writer.close()
            if isinstance(error, TimeoutError):
                message = f"no program comes up in the container within {_START_SECONDS:.0f} s"
                raise EngineError(message, hint=SEE_DAEMON) from error
            raise

    async def _transfer(self, op: str, **fields: Any) -> Transfer:
        """The nest forks a child with a stream that is parked for it."""
        stream, answer = await self._ask_with_stream(op, self._park(), **fields)
        return Transfer(stream, stream.writer, answer)

    async def courier(self, host: bytes) -> Sandbox:
        """In a container of its own, which has a network."""
        return await courier(self._beside(), host, self._sandboxes)

    def _beside(self) -> Neighbour:
        assert self._daemon is not None
        return Neighbour(
            self._daemon, self._container, self._nest_pid, self.limits, self.docker_network
        )

    async def _why(self) -> str:
        """Why a stream has ended: with the nest, which answers no more then, or alone."""
        return ("" if await self._nest_lives() else self._lost) or "its sandbox ended"

    async def _nest_lives(self) -> bool:
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._nest.ask("status")
                return True
        return False

    # -- golden roots: kept by the nests in a volume that all containers of the image share

    @property
    def machine(self) -> list[str]:
        """The daemon's."""
        return self._machine

    def golden(self, key: str) -> str | None:
        """The nest holds all that were there when it started; it is told which is of use."""
        self._root = f"{golden.PREFIX}{key}"
        if key not in self._golden:
            return None
        self._chore(self._ask_golden("hold", key))
        return self._root

    def inherit_golden(self, key: str) -> None:
        """The nest holds what has come since it started, too."""
        self._chore(self._ask_golden("hold", key))

    def discard_golden(self, key: str) -> None:
        """The nest removes it, unless another one holds it."""
        self._golden.discard(key)
        self._chore(self._ask_golden("discard", key))

    async def _ask_golden(self, op: str, key: str) -> None:
        try:
            await self._nest.ask(op, key=key)
        except EngineError as error:
            log.warning("golden root: %s", error)

    def spoil_golden(self, key: str) -> None:
        """The nest marks it; it goes when no nest holds it any more."""
        self._golden.discard(key)
        self._chore(self._ask_golden("spoil", key))

    async def keep_golden(self, name: str, key: str) -> None:
        """A child of the nest makes it."""
        await self._nest.ask("golden", name=name, key=key)
        if (await self._nest.ask("hold", key=key))["held"]:
            self._golden.add(key)

    async def ran_out_of_memory(self) -> bool:
        """By the container's control group, which the nest reads."""
        try:
            return bool((await self._nest.ask("starved"))["starved"])
        except EngineError:
            return False  # the container has ended, and `lost` says so

    async def status(self) -> dict[str, Any]:
        """Staging's fill, in bytes, and where things are."""
        assert self._daemon is not None
        answer = await self._nest.ask("status")
        return {
            "engine": f"{self.name} at {self._daemon.endpoint.url}",
            "image": images.code_tag(),
            "start": self._beginning,
            "cgroup": f"container {self._container[:12]}",
            "staging used": int(answer["used"]),
            "staging size": int(answer["size"]),
        }
