"""An engine in memory: no process, no file, no time passes. Its sandboxes are the real `Sandbox`,
with a supervisor at the other end that is a task here and a guest that is `fake_guest.py`.

What is hard to bring about elsewhere is brought about by its stops. At each request to a
supervisor, call of a guest (by their `op`) and method of the engine (by its name) there can be one:

    stop = engine.stop("restore")
    rewinding = asyncio.create_task(session.rewind("1"))
    sandbox = await stop.reached
    stop.fail(RestoreFailed("no"))     # or go(), or sandbox.guest_dies(signal=9), sandbox.is_lost()
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fake_guest import HELLO, Ended, Guest, State

from crkernel.engines import Engine, Limits, Sandbox
from crkernel.engines.answers import Findings
from crkernel.errors import (
    Corrupt,
    CRKernelError,
    DumpRefused,
    EngineError,
    NoSpace,
    RestoreFailed,
    SandboxDied,
)
from crkernel.guest import wire

Json = dict[str, Any]
_DIFFERENCE = 1 << 20
"""What is left of a checkpoint that was made small."""


@dataclass
class Snapshot:
    """A checkpoint in staging."""

    state: State
    memory: int
    files: int
    base: str | None = None
    damage: str | None = None
    dropped: bool = False


class Stop:
    """Where the engine waits for the test."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.reached: asyncio.Future[FakeSandbox | None] = loop.create_future()
        """The sandbox it is about, if it is about one."""
        self._decision: asyncio.Future[None] = loop.create_future()

    def go(self) -> Stop:
        """Go on as if nothing had been."""
        self._decision.set_result(None)
        return self

    def fail(self, error: CRKernelError) -> Stop:
        """Do not do it, but fail."""
        self._decision.set_exception(error)
        return self

    async def wait(self, sandbox: FakeSandbox | None) -> None:
        """For what the test decides. Raises the error that it says."""
        self.reached.set_result(sandbox)
        await self._decision


class FakeSandbox:
    """The far end of a sandbox: supervisor and guest. What the kernel writes to."""

    def __init__(self, engine: FakeEngine) -> None:
        self.guest: Guest | None = None
        self.seen: list[str] = []
        """The requests and calls so far."""
        self.ended = False
        self._engine = engine
        self._to_kernel = asyncio.StreamReader()
        self._requests: asyncio.Queue[Json] = asyncio.Queue()
        self._decoder = wire.Decoder()
        self._rested = False
        self._late = ""
        self._files: dict[str, str | bytes] = {}  # as the newest checkpoint has them
        self._operations: dict[str, Callable[[Json], Json | None]] = {
            "boot": self._boot,
            "call": self._call,
            "dump": self._dump,
            "kill": self._kill,
            "prepare": self._prepare,
            "restore": self._restore,
            "rested": lambda _: {"rested": self._living() is not None and self._rested},
            "warm": lambda _: {},
        }
        self._server = asyncio.create_task(self._serve())
        self.near = Sandbox(self._to_kernel, self, self._end)  # type: ignore[arg-type]

    # -- for tests

    def guest_dies(self, **how: int) -> None:
        """The guest ends, by `code` or `signal`."""
        self.guest = None
        self._send({"event": "exited", **how})

    def is_lost(self) -> None:
        """The sandbox ends, with all in it."""
        self.guest, self.ended = None, True
        self._server.cancel()
        self._to_kernel.feed_eof()

    def goes_on(self) -> None:
        """The guest does something by itself."""
        self._rested = False

    def prints_behind_its_answer(self, text: str) -> None:
        """The guest does, once, so soon that both arrive at the same time."""
        self._late = text

    def goes_silent(self) -> None:
        """The guest answers nothing any more."""
        assert self.guest is not None
        self.guest.is_silent = True

    # -- the kernel's writer

    def write(self, data: bytes) -> None:
        """Requests."""
        for body in self._decoder.feed(data):
            self._requests.put_nowait(wire.parse(body))

    def close(self) -> None:
        """The kernel hangs up."""

    async def wait_closed(self) -> None:
        """It has."""

    async def _end(self) -> None:
        await self._engine.pass_stop("end", self)
        self.guest, self.ended = None, True
        self._server.cancel()

    # -- the supervisor

    async def _serve(self) -> None:
        while True:
            request = await self._requests.get()
            op = request["op"]
            self.seen.append(op if op != "call" else request["call"]["op"])
            try:
                await self._engine.pass_stop(self.seen[-1], self)
                answer = self._operations[op](request)
            except CRKernelError as error:
                self._rested = self._rested or (op == "dump" and not self._has_timers)
                answer = {"error": {"kind": error.ename, "message": str(error)}}
            except Ended as ended:
                self.guest_dies(**ended.how)
                continue
            if answer is not None:
                self._send({"id": request["id"], **answer})
            if self._late:
                event = {"event": "output", "name": "stdout", "text": self._late}
                self._late = ""
                self._send(event, wire.EVENT)

    def _send(self, message: Json, kind: bytes = b"") -> None:
        if not self.ended:
            self._to_kernel.feed_data(wire.frame(wire.encode(message), kind))

    def _boot(self, request: Json) -> Json:
        self._refuse_a_second_guest()
        if not request["command"][0].endswith("/node"):
            raise SandboxDied("the guest did not come up: it ended at once")
        self._begin(State())
        return {"hello": HELLO}

    def _call(self, request: Json) -> Json | None:
        guest = self._living()
        if request["at_rest"] and not self._rested:
            return {"rested": False}
        self._rested = self._rested and request["look"]
        for reply in guest.call(request["call"]):
            self._send(reply, wire.REPLY)
        return None

    def _dump(self, request: Json) -> Json:
        guest, name = self._living(), request["name"]
        if guest.is_spinning:
            raise DumpRefused("a call goes on")
        files = guest.state.files
        new = sum(len(f) for path, f in files.items() if self._files.get(path) != f)
        snapshot = Snapshot(guest.state.copy(), guest.state.memory, new)
        self._engine.keep(name, snapshot)
        self._rested, self._files = not self._has_timers, dict(files)
        return {"seconds": 0.002, "frozen": 0.001, "memory": snapshot.memory, "files": new}

    def _prepare(self, request: Json) -> Json:
        self._refuse_a_second_guest()
        self._engine.restorable(request["name"])
        return {"ready": True}

    def _restore(self, request: Json) -> Json:
        self._refuse_a_second_guest()
        snapshot = self._engine.restorable(request["name"])
        self._begin(snapshot.state.copy())
        self._rested = not self._has_timers
        return {"hello": HELLO, "seconds": 0.001}

    def _kill(self, request: Json) -> None:
        self._send({"id": request["id"]})
        self.guest_dies(signal=9)

    def _begin(self, state: State) -> None:
        self.guest = Guest(state, lambda event: self._send(event, wire.EVENT))
        self._files = dict(state.files)

    @property
    def _has_timers(self) -> bool:
        return self.guest is not None and self.guest.state.timers > 0

    def _living(self) -> Guest:
        if self.guest is None:
            raise SandboxDied("the guest has ended")
        return self.guest

    def _refuse_a_second_guest(self) -> None:
        if self.guest is not None:
            raise EngineError("the sandbox has a guest already")


class FakeEngine(Engine):
    """Its checkpoints lie in a dictionary."""

    name = "fake"
    _lingering: ClassVar[dict[bytes, tuple[bytes, dict[str, Snapshot]]]] = {}

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        super().__init__(limits, secret)
        self.staging: dict[str, Snapshot] = {}
        self.sandboxes: list[FakeSandbox] = []
        """All that there were, oldest first."""
        self.log: list[str] = []
        """What was asked of the engine, in words."""
        self._stops: defaultdict[str, deque[Stop]] = defaultdict(deque)
        self._lost = False
        self._pushed = itertools.count(1)

    # -- for tests

    def stop(self, what: str) -> Stop:
        """Have the next one wait (or the one after those that are to wait already)."""
        self._stops[what].append(Stop())
        return self._stops[what][-1]

    def lose_all(self) -> None:
        """All sandboxes and checkpoints are gone at once."""
        self._lost = True
        self.staging.clear()
        for sandbox in self.alive:
            sandbox.is_lost()

    @property
    def alive(self) -> list[FakeSandbox]:
        """The sandboxes that have not ended."""
        return [sandbox for sandbox in self.sandboxes if not sandbox.ended]

    async def pass_stop(self, what: str, sandbox: FakeSandbox | None = None) -> None:
        """Wait there if the test wants it."""
        if self._stops[what]:
            await self._stops[what].popleft().wait(sandbox)

    # -- staging

    def keep(self, name: str, snapshot: Snapshot) -> None:
        """A new checkpoint. Raises DumpRefused."""
        if "/" in name or name.startswith(".") or name in self.staging:
            raise DumpRefused(f"{name!r} is no name for a new checkpoint")
        if self.used + snapshot.memory > self.limits.staging_size:
            raise DumpRefused("staging is full (limit staging_size)")
        self.staging[name] = snapshot

    def restorable(self, name: str) -> Snapshot:
        """Raises RestoreFailed where there is none."""
        snapshot = self.staging.get(name)
        if snapshot is None or snapshot.dropped or snapshot.damage is not None:
            raise RestoreFailed(f"{name!r} is no checkpoint, or damaged")
        return snapshot

    @property
    def used(self) -> int:
        """Bytes of staging."""
        return sum(snapshot.memory + snapshot.files for snapshot in self.staging.values())

    # -- the engine

    async def start(self) -> bytes | None:
        """See `Engine.start`."""
        await self.pass_stop("start")
        self._lost = False
        state, staging = self._lingering.pop(self.secret or b"", (None, {}))
        self.staging.update(staging)
        return state

    @property
    def lost(self) -> bool:
        """See `Engine.lost`."""
        return self._lost

    async def linger(self, state: bytes) -> None:
        """See `Engine.linger`."""
        await self.pass_stop("linger")
        self._lingering[self.secret or b""] = (state, dict(self.staging))
        await self.close()

    async def sandbox(self) -> Sandbox:
        """See `Engine.sandbox`."""
        await self.pass_stop("sandbox")
        self.sandboxes.append(FakeSandbox(self))
        return self.sandboxes[-1].near

    async def courier(self, host: bytes) -> Sandbox:  # noqa: ARG002
        """There is no npm here."""
        raise EngineError("the engine fake runs no npm")

    async def thin(self, name: str, base: str) -> tuple[int, int]:
        """See `Engine.thin`."""
        self.log.append(f"thin {name} {base}")
        await self.pass_stop("thin")
        self._get(base)
        return self._shrink(name, base)

    async def rebase(self, name: str, near: str | None, *, urgent: bool = False) -> tuple[int, int]:
        """See `Engine.rebase`."""
        self.log.append(f"rebase {name} {near}{' urgent' if urgent else ''}")
        await self.pass_stop("rebase")
        return self._shrink(name, None)

    def _shrink(self, name: str, base: str | None) -> tuple[int, int]:
        snapshot = self._get(name)
        before, snapshot.memory, snapshot.base = snapshot.memory, _DIFFERENCE, base
        return before, snapshot.memory

    async def drop(self, names: Sequence[str]) -> int:
        """See `Engine.drop`."""
        self.log.append(f"drop {' '.join(names)}")
        await self.pass_stop("drop")
        before = self.used
        for name in names:
            self._get(name).dropped = True
        needed = {s.base for s in self.staging.values() if not s.dropped}
        for name in [n for n, s in self.staging.items() if s.dropped and n not in needed]:
            del self.staging[name]
        return before - self.used

    async def costs(self, names: Sequence[str]) -> dict[str, list[int]]:
        """See `Engine.costs`."""
        return {name: [self._get(name).memory, 0, 0, self._get(name).files] for name in names}

    async def verify(self, target: str) -> Findings:
        """See `Engine.verify`."""
        self.log.append(f"verify {target}")
        await self.pass_stop("verify")
        snapshot = self._get(target)
        needed_by = [name for name, one in self.staging.items() if one.base == target]
        return Findings(snapshot.damage, [snapshot.base] if snapshot.base else [], needed_by)

    async def fetch(
        self, names: Sequence[str], known: Collection[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """See `Engine.fetch`."""
        self.log.append(f"fetch {' '.join([*names, *known])}")
        whole = pickle.dumps({name: self._get(name) for name in names})
        yield whole[:100]
        await self.pass_stop("fetch")
        yield whole[100:]

    async def push(
        self, stream: AsyncIterable[bytes], progress: Callable[[int], None] = lambda _: None
    ) -> dict[str, str]:
        """See `Engine.push`."""
        whole = bytearray()
        async for data in stream:
            whole += data
            progress(len(whole))
        try:
            found = pickle.loads(whole)
        except (pickle.UnpicklingError, EOFError) as error:
            raise Corrupt(f"the stream of checkpoints is damaged: {error}") from error
        if (
            self.used + sum(snapshot.memory for snapshot in found.values())
            > self.limits.staging_size
        ):
            raise NoSpace("the checkpoints do not fit (limit staging_size)")
        names = {name: f"p{next(self._pushed)}" for name in found}
        self.staging.update({names[name]: snapshot for name, snapshot in found.items()})
        return names

    async def digests(self) -> list[str]:
        """See `Engine.digests`."""
        return []

    async def status(self) -> dict[str, Any]:
        """See `Engine.status`."""
        staging = {"staging used": self.used, "staging size": self.limits.staging_size}
        return {"engine": "fake", "image": "none", "start": "cold", "cgroup": "none"} | staging

    async def close(self) -> None:
        """See `Engine.close`."""
        await asyncio.gather(*(sandbox.near.end() for sandbox in self.alive))
        self.staging.clear()

    def _get(self, name: str) -> Snapshot:
        try:
            return self.staging[name]
        except KeyError:
            raise EngineError(f"there is no checkpoint {name!r} in staging") from None
