"""Sandboxes on this machine, without root: a nest per session, entered by user namespaces."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from crkernel import image
from crkernel.engines import nest_process, outside, stream
from crkernel.engines.cgroup import Cgroup
from crkernel.engines.limits import Limits
from crkernel.engines.local_pool import LocalPool
from crkernel.engines.nest_engine import ANEW, NO_ROOM, NestEngine, Transfer
from crkernel.engines.nest_process import NestProcess
from crkernel.engines.requests import Json
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import EngineError, EngineUnavailable
from crkernel.guest import golden, golden_store, linger, link, wire
from crkernel.guest.greeting import peer

log = logging.getLogger(__name__)

_START_SECONDS = 20.0
_MAX_DESCRIPTORS = 200


class LocalEngine(NestEngine):
    """Owns the nest: its process and the datagram socket to it."""

    name = "local"
    networks = ("none", "full")

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        super().__init__(limits, secret)
        self._control: socket.socket | None = None
        self._process: NestProcess | Heirloom | None = None
        self._image: Path | None = None
        self._golden_folder = Path()
        self._spoiled: set[str] = set()
        self._golden: dict[str, int] = {}  # descriptors that hold golden roots, by their keys
        self._cgroup: Cgroup | None = None

    async def start(self) -> bytes | None:
        """Start the nest or take over the one that waits, unless there is one already."""
        if self._control is not None:
            return None
        if not hasattr(os, "pidfd_open"):
            raise EngineUnavailable("the local engine needs Linux", hint=_DOCTOR)
        await self._end_nest()  # of a start that failed
        self._beginning = "cold"
        self._image = image.require_image()
        self._golden_folder = nest_process.golden_folder(self._image)
        control = linger.claim(self.secret) if self.secret else None
        pool = LocalPool(self._image, self.limits, self.network, self.pool, self._wanted)
        if control is not None and (state := await self._take_over(control)) is not None:
            nest_process.drop_ahead()
            self._keep_full(pool)
            return state
        if not await self._claim(pool):
            self._process = nest_process.take(self._image, self.limits.staging_size)
            self._cgroup = Cgroup.around(self._process.pid, self.limits)
            await self._hello(self._process.control)
        self._keep_full(pool)
        return None

    async def _claim(self, pool: LocalPool) -> bool:
        """Take a nest that waits, if there is one."""
        assert self._image is not None
        try:
            while (control := pool.claim()) is not None:
                try:
                    await self._hello(control)
                except EngineUnavailable:
                    control.close()
                    continue  # its time was just up
                nest_process.drop_ahead()
                self._process = Heirloom(control, self._image)
                self._cgroup = Cgroup.around(self._process.pid, self.limits)
                self._beginning = "warm: a nest had waited"
                return True
        except (EngineUnavailable, OSError) as error:
            self._disconnect()  # it may have ended after its hello
            log.warning("the pool is of no use: %s", error)
        return False

    async def _take_over(self, control: socket.socket) -> bytes | None:
        """Have the same hold on the nest of the kernel before as on one of our own; the state that
        it keeps, or None if it is of no use."""
        assert self._image is not None
        first, _, state = (await self._hello(control) or b"{}").partition(b"\n")
        left = json.loads(first)
        if left.get("image") != str(self._image):
            log.warning("the sandbox image is a new one: the past of before the restart is gone")
            self._disconnect()
            return None
        self._process = Heirloom(control, self._image)
        self._beginning = "the nest of before the restart"
        self._cgroup = Cgroup.of(left["cgroup"]) if left["cgroup"] else None
        return state

    async def _hello(self, control: socket.socket) -> bytes | None:
        """Wait until a nest is ready, then talk to it; the state it keeps, if any."""
        loop = asyncio.get_running_loop()
        control.setblocking(False)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _readable(control)
            hello, descriptors = link.receive(control, 1) or ({}, [])
        except (TimeoutError, OSError, ValueError) as error:
            raise EngineUnavailable(f"the nest did not start: {error!r}", hint=_DOCTOR) from error
        if hello.get("ready") != wire.PROTOCOL:
            failed = "failed" in hello
            reason = f"cannot {hello['failed']}: {hello['reason']}" if failed else "it ended"
            raise EngineUnavailable(f"no sandbox can be made here: {reason}", hint=_DOCTOR)
        self._control = control
        self._nest.connect(partial(link.send, control))
        loop.add_reader(control.fileno(), self._on_answer)
        if not descriptors:
            return None
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            return file.read()

    async def linger(self, state: bytes) -> None:
        """Leave the nest to the next kernel."""
        if not self.secret:
            raise EngineError("this kernel's connection has no key to know the next kernel by")
        where, token = linger.address(self.secret), linger.token(self.secret)
        with os.fdopen(os.memfd_create("crkernel"), "wb") as file:
            cgroup = str(self._cgroup.path) if self._cgroup else None
            left = {"image": str(self._image), "cgroup": cgroup}
            file.write(json.dumps(left).encode() + b"\n" + state)
            file.flush()
            fields = {"address": where.hex(), "token": token.decode()}
            await self._nest.ask("linger", [file.fileno()], **fields)
        self._process = self._cgroup = None
        self._disconnect()

    async def make_room(self) -> None:
        """By the control group, where there is one."""
        try:
            if self._cgroup is not None:
                self._cgroup.hold(self.limits)
        except OSError as error:
            raise EngineError(f"{NO_ROOM}: {error}", hint=ANEW) from error

    def _request(self, golden: str | None = None) -> Json:
        """See there."""
        nameserver = outside.nameserver() if self.network == "full" else None
        return {"disk": self.limits.disk_size, "network": nameserver, "golden": golden}

    async def _ask_for(self, request: Json) -> tuple[Sandbox, Json]:
        """The nest gets the other end of a socket."""
        if request["network"] is not None and not outside.tun_is_open():
            raise EngineUnavailable(
                "no guest can have a network here: /dev/net/tun is missing or closed to users",
                hint=outside.OPEN_TUN,
            )
        return await self._fork("sandbox", [], **request)

    async def courier(self, host: bytes) -> Sandbox:
        """Fork one from the nest, which shares the network of the host."""
        with os.fdopen(os.memfd_create("crkernel"), "wb") as file:
            file.write(host)
            file.flush()
            return (await self._fork("courier", [file.fileno()], disk=self.limits.disk_size))[0]

    async def _fork(self, op: str, descriptors: list[int], **fields: Any) -> tuple[Sandbox, Json]:
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *descriptors]
        try:
            answer = await self._nest.ask(op, descriptors, **fields)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        pid = int(answer["pid"])

        async def end() -> None:
            self._sandboxes.discard(sandbox)
            with suppress(EngineError):  # the nest is gone, and with it the sandbox
                await self._nest.ask("end", pid=pid)

        reader, writer = await stream.opened(ours)
        sandbox = Sandbox(reader, writer, end, pid=pid)
        self._sandboxes.add(sandbox)
        return sandbox, answer

    async def _transfer(self, op: str, **fields: Any) -> Transfer:
        """The nest forks a child with the other end of a socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                answer = self._nest.begin(op, [theirs.fileno()], **fields)
            except BaseException:
                ours.close()
                raise
        return Transfer(*await asyncio.open_connection(sock=ours, limit=1 << 20), answer)

    def golden(self, key: str) -> str | None:
        """They lie where sandboxes see them as part of the image's tree. One that was asked for is
        held until `close`: checkpoints of guests that started from it need its memory."""
        self._root = f"{golden.PREFIX}{key}"
        if key in self._spoiled:
            return None
        if key in self._golden:
            return self._root
        descriptor = golden_store.hold(str(self._golden_folder), key)
        if descriptor is None:
            return None
        self._golden[key] = descriptor
        golden_store.touch(str(self._golden_folder), key)
        return self._root

    def inherit_golden(self, key: str) -> None:
        """As `golden`, but that a damaged one stays."""
        folder = str(self._golden_folder)
        held = key in self._golden
        if not held and (held_by := golden_store.hold(folder, key, needed=True)) is not None:
            self._golden[key] = held_by
        if golden_store.is_spoiled(folder, key):
            self._spoiled.add(key)

    def discard_golden(self, key: str) -> None:
        """Let go of it, and remove it unless another kernel holds it: to that one it is of use."""
        os.close(self._golden.pop(key))
        try:
            golden_store.remove_unused(str(self._golden_folder / key))
        except OSError as error:
            log.warning("the golden root cannot be removed: %s", error)

    def spoil_golden(self, key: str) -> None:
        """It goes when nobody holds it any more."""
        self._spoiled.add(key)
        try:
            golden_store.spoil(str(self._golden_folder), key)
        except OSError as error:
            log.warning("the golden root cannot be marked as damaged: %s", error)

    async def keep_golden(self, name: str, key: str) -> None:
        """The nest makes it; only the kernel can write to where they are kept."""
        answer = await self._nest.ask("golden", name=name, key=key)
        folder = self._golden_folder
        try:
            files, descriptors = answer["files"], answer["descriptors"]
            await asyncio.to_thread(golden_store.store, str(folder), key, files, descriptors)
        except OSError as error:
            raise EngineError(f"the golden root cannot be kept: {error}") from error

    async def status(self) -> dict[str, Any]:
        """Staging's fill, in bytes, and where things are."""
        answer = await self._nest.ask("status")
        return {
            "engine": self.name,
            "image": str(self._image),
            "start": self._beginning,
            "cgroup": str(self._cgroup.path) if self._cgroup else "none: limits are by process",
            "staging used": int(answer["used"]),
            "staging size": int(answer["size"]),
        }

    async def ran_out_of_memory(self) -> bool:
        """By the nest's control group, where there is one."""
        return self._cgroup is not None and self._cgroup.ran_out_of_memory

    async def close(self) -> None:
        """End the nest, which takes everything along."""
        await self._leave_pool()
        self._disconnect()
        for sandbox in list(self._sandboxes):
            await sandbox.end()
        await self._end_nest()

    async def _end_nest(self) -> None:
        """And let go of all that was kept for it."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None
        if self._cgroup is not None:
            self._cgroup.remove()
            self._cgroup = None
        for descriptor in self._golden.values():
            os.close(descriptor)
        self._golden.clear()

    def _on_answer(self) -> None:
        assert self._control is not None
        try:
            answer = link.receive(self._control, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            answer = None
        except wire.WireError as error:
            self._nest.fail(EngineError(f"an answer of the nest was lost: {error}"))
            return
        if answer is None:
            self._disconnect()
            return
        self._nest.deliver(*answer)

    def _disconnect(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        self._nest.hang_up(EngineError("the nest is gone", hint="restart the kernel"))


class Heirloom:
    """The process of a nest that another kernel started, before a restart or for the pool; as a
    NestProcess in what it can."""

    def __init__(self, control: socket.socket, path: Path) -> None:
        """It runs from the image at `path`."""
        self.pid, _ = peer(control)
        self._held = image.hold(path)
        self._descriptor = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """End it, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self) -> None:
        """Until it has ended, and needs its image no more."""
        select.select([self._descriptor], [], [])
        os.close(self._descriptor)
        os.close(self._held)


async def _readable(control: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(control.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(control.fileno())


_DOCTOR = "run: crkernel doctor"
