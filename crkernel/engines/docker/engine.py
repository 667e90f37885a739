"""The engine: owns one container, the link to its nest, and a stream for each sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from crkernel.engines.base import Engine, Limits, Sandbox
from crkernel.engines.docker import container, images
from crkernel.engines.docker.daemon import DOCTOR, Daemon
from crkernel.engines.docker.stream import Frames, Stream
from crkernel.engines.requests import Requests
from crkernel.errors import CRKernelError, DaemonRefused, EngineError, EngineUnavailable
from crkernel.guest import golden, linger, processor, wire

log = logging.getLogger(__name__)

_REFUSED = "change the setting that it is about, or the daemon's; our options: docs/security.md"
_START_SECONDS = 30.0
_PATIENCE = 60.0  # seconds that a nest waits for its kernel
_POOL_PATIENCE = 3600.0  # and one in the pool
_POOL_DELAY = 1.0  # seconds after which the pool is filled, so as not to slow down the first cell
_CUT_SECONDS = 0.2
"""A sandbox's stream may end just before the nest's; if that does not follow, it was alone."""
_LAST_SECONDS = 3.0


_POOL_NAME = "crkernel-pool-"


class DockerEngine(Engine):
    """Sandboxes of one kernel, in a container of its own."""

    name = "docker"

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        super().__init__(limits, secret)
        self._daemon: Daemon | None = None
        self._container = ""
        self._stream: Stream | None = None  # to the nest
        self._nest = Requests()
        self._listener: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()  # the link to the nest has
        self._lost = ""  # how the container came to its end, if it did
        self._golden: set[str] = set()
        self._machine = processor.identity()
        self._sandboxes: set[Sandbox] = set()  # or the collector takes one that works alone
        self._chores: set[asyncio.Task[Any]] = set()

    # -- life

    async def start(self) -> bytes | None:
        """Start a container, or take over the one that waits, unless there is one already."""
        if self._stream is not None:
            return None
        self._daemon = self._daemon or await Daemon.connect()
        image = await images.require(self._daemon)
        if self.secret and (state := await self._take_over(image)) is not None:
            return state
        if self.pool:
            self._chore(self._fill_pool(image))
            if await self._claim(image):
                return None
        await self._start_container(image)
        try:
            await self._hello(await self._gate(link="kernel"))
        except BaseException:
            await self._remove()
            raise
        return None

    async def _start_container(self, image: str) -> None:
        """One for this kernel alone, under its name."""
        name = self._name()
        try:
            self._container = await self._new_container(image, name, {}, _PATIENCE)
        except DaemonRefused as refused:
            if refused.status != 409:
                refused.hint = _REFUSED
                raise
            # The name is taken, by the kernel that was killed and is restarted as this one.
            assert self._daemon is not None
            with contextlib.suppress(DaemonRefused):
                await self._daemon.ask("remove_container", name, force=True)
            self._container = await self._new_container(image, name, {}, _PATIENCE)

    async def _new_container(
        self, image: str, name: str, labels: dict[str, str], patience: float
    ) -> str:
        assert self._daemon is not None
        maker = {"crkernel.host": socket.gethostname(), "crkernel.pid": str(os.getpid())}
        body = container.body(
            image,
            self.limits,
            golden=images.golden_volume(),
            labels=maker | labels,
            info=await self._daemon.ask("info"),
            patience=patience,
        )
        created = await self._daemon.ask("create_container_from_config", body, name)
        await self._daemon.ask("start", created["Id"])
        return str(created["Id"])

    # -- the pool: containers that no kernel has yet

    async def _claim(self, image: str) -> bool:
        """Take one of the pool, if there is one. Its nest takes the first kernel that comes and no
        other, so of two that want the same one is sent away."""
        assert self._daemon is not None
        label = f"{container.POOL}={container.kind(image, self.limits)}"
        for found in await self._daemon.ask("containers", filters={"label": label}):
            if not found["Names"][0].startswith(f"/{_POOL_NAME}"):
                continue  # it has a kernel
            self._container = str(found["Id"])
            try:
                await self._hello(await self._gate(link="kernel"))
            except CRKernelError:
                self._container = ""
                continue  # another kernel was faster, or its time was up
            self._chore(self._christen())
            return True
        return False

    async def _christen(self) -> None:
        """Give a container that was claimed the name by which the next kernel finds it."""
        assert self._daemon is not None
        try:
            await self._daemon.ask("rename", self._container, self._name())
        except EngineError as error:
            log.warning("a restart would not keep the past: %s", error)

    async def _fill_pool(self, image: str) -> None:
        """Have as many containers wait as are wanted. Names are given once, so that kernels which
        do it at the same time do not do it twice."""
        await asyncio.sleep(_POOL_DELAY)
        kind = container.kind(image, self.limits)
        for slot in range(self.pool):
            name = f"{_POOL_NAME}{kind}-{slot}"
            try:
                await self._new_container(image, name, {container.POOL: kind}, _POOL_PATIENCE)
            except DaemonRefused as refused:
                if refused.status != 409:
                    log.warning("the pool cannot be filled: %s", refused)
                    return
            except EngineError as error:
                log.warning("the pool cannot be filled: %s", error)
                return

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
            return state.encode()
        if state:
            log.warning("the sandbox image is a new one: the past of before the restart is gone")
        await self._remove()
        return None

    async def _gate(self, **greeting: str) -> Stream:
        assert self._daemon is not None
        return await self._daemon.run(self._container, [*container.GATE, json.dumps(greeting)])

    async def _hello(self, stream: Stream) -> wire.Message:
        """Wait until the nest is ready, then listen to it."""
        frames = Frames(stream)
        try:
            async with asyncio.timeout(_START_SECONDS):
                hello = await frames.next() or {}
        except (TimeoutError, OSError, wire.WireError) as error:
            raise EngineUnavailable(f"the nest did not start: {error!r}", hint=DOCTOR) from error
        if hello.get("ready") != wire.PROTOCOL:
            failed = "failed" in hello
            reason = f"cannot {hello['failed']}: {hello['reason']}" if failed else "it ended"
            raise EngineUnavailable(f"no sandbox can be made in Docker: {reason}", hint=DOCTOR)
        self._lost = ""
        self._ended.clear()
        self._stream = stream
        self._golden = set(hello["golden"])
        self._machine = list(hello["machine"])
        self._nest.connect(lambda request, _: stream.writer.write(wire.pack(request)))
        self._listener = asyncio.create_task(self._listen(frames))
        return hello

    async def _listen(self, frames: Frames) -> None:
        """Pass on what the nest answers, until it ends; then find out why it did."""
        with contextlib.suppress(OSError, wire.WireError):
            while (message := await frames.next()) is not None:
                self._nest.deliver(message)
        self._ended.set()
        self._lost = await self._post_mortem()
        self._disconnect(self._lost)
        self._chore(self._remove())

    async def _post_mortem(self) -> str:
        assert self._daemon is not None
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                ended = await self._daemon.find("wait", self._container)
        except EngineUnavailable as error:
            return f"its container is out of reach: {error}"
        except (EngineError, TimeoutError):
            return "the connection to its container was cut"
        if ended is None:
            return "its container was removed"
        code = int(ended["StatusCode"])
        return "its container was killed" if code == 137 else f"its container ended (code {code})"

    def _disconnect(self, why: str) -> None:
        if self._stream is not None:
            self._stream.writer.close()
            self._stream = None
        self._nest.hang_up(EngineError(why, hint="restart the kernel"))

    @property
    def lost(self) -> bool:
        """The container has ended with all that was in it; `start` makes a new one."""
        return bool(self._lost)

    async def linger(self, state: bytes) -> None:
        """Leave the container to the next kernel."""
        if not self.secret:
            raise EngineError("this kernel's connection has no key to know the next kernel by")
        left = f"{images.code_tag()}\n{state.decode()}"
        await self._nest.ask("linger", token=linger.token(self.secret).decode(), state=left)
        self._container = ""
        await self._stop_listening()

    async def close(self) -> None:
        """Remove the container, which takes everything along."""
        await self._stop_listening()
        for sandbox in list(self._sandboxes):
            await sandbox.end()
        await self._remove()
        if self._chores:
            await asyncio.wait(self._chores, timeout=_LAST_SECONDS)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        self._disconnect("the nest is gone")

    async def _remove(self) -> None:
        if self._container and self._daemon is not None:
            name, self._container = self._container, ""
            with contextlib.suppress(EngineError):  # it has gone, or the daemon has
                await self._daemon.ask("remove_container", name, force=True)

    def _chore(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # -- sandboxes

    async def sandbox(self) -> Sandbox:
        """Fork one from the nest, with a stream of its own."""
        ticket = secrets.token_hex(8)
        stream = await self._gate(link="sandbox", ticket=ticket)
        try:
            if await Frames(stream).next() is None:
                raise EngineError(await self._why())
            fields: dict[str, Any] = {
                "ticket": ticket,
                "disk": self.limits.disk_size,
                "network": None,
            }
            answer = await self._nest.ask("sandbox", **fields)
        except BaseException:
            stream.writer.close()
            raise
        pid, listener = int(answer["pid"]), self._listener

        async def end() -> None:
            self._sandboxes.discard(sandbox)
            if self._listener is not listener:
                return  # it went with its nest: another one's process has that number now
            with contextlib.suppress(EngineError):  # the nest is gone, and with it the sandbox
                await self._nest.ask("end", pid=pid)

        sandbox = Sandbox(stream, stream.writer, end, self._why)
        self._sandboxes.add(sandbox)
        return sandbox

    async def _why(self) -> str:
        """Why a stream has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CUT_SECONDS):
                await self._ended.wait()
        if self._ended.is_set() and self._listener is not None:
            await asyncio.wait([self._listener])
        return self._lost or "its sandbox ended"

    async def thin(self, name: str, base: str) -> tuple[int, int]:
        """Done by a child of the nest, at low priority."""
        return await self._nest.shrink("thin", name, base)

    async def rebase(self, name: str, near: str | None) -> tuple[int, int]:
        """As `thin`."""
        return await self._nest.shrink("rebase", name, near)

    async def drop(self, names: Sequence[str]) -> int:
        """As `thin`."""
        return await self._nest.drop(names)

    async def costs(self, names: Sequence[str]) -> dict[str, list[int]]:
        """As `thin`."""
        return await self._nest.costs(names)

    async def verify(self, target: str) -> tuple[str | None, list[str], list[str]]:
        """As `thin`."""
        return await self._nest.verify(target)

    # -- golden roots: kept by the nests in a volume that all containers of the image share

    @property
    def machine(self) -> list[str]:
        """The daemon's."""
        return self._machine

    def golden(self, key: str) -> str | None:
        """The nest holds all that were there when it started."""
        return f"{golden.PREFIX}{key}" if key in self._golden else None

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
            "cgroup": f"container {self._container[:12]}",
            "staging used": int(answer["used"]),
            "staging size": int(answer["size"]),
        }
