"""The one orchestrator: cells, checkpoints and rewinds of one notebook.

It joins a timeline (what happened) with an engine (where it happens). At any time there is one
live sandbox and, as a rule, a warm spare. All operations are called from one event loop, one at a
time; what goes on in the background is awaited by the next operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from crkernel.engines.base import Dump, Engine, Limits, Sandbox, died
from crkernel.errors import CheckpointError, CRKernelError, DumpRefused, EngineError, SandboxDied
from crkernel.timeline import Checkpoint, Cost, Timeline

log = logging.getLogger(__name__)

Json = dict[str, Any]
ROOT = "0"
_STUBBORN_SECONDS = 2.0
"""A cell that an interrupt did not stop for so long is ended with its guest by the next one."""
_SPARE_DELAY = 0.25
"""Seconds that the first spare waits, so as not to slow down the first cell."""
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Language:
    """How to start a guest; nothing else of the session knows what language it speaks."""

    command: Callable[[Limits], list[str]]
    environment: Mapping[str, str]
    out_of_memory: str
    """What it prints to stderr when it dies of its memory limit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended. `result` is {"data", "metadata"}, `error` {"name", "message", "traceback",
    ...} as the guest says it, checked."""

    status: str
    result: Json | None = None
    error: Json | None = None
    user_expressions: Json = field(default_factory=dict)


class Sink(Protocol):
    """Where what a cell prints and shows goes to."""

    def stream(self, name: str, text: str) -> None:
        """Text for "stdout" or "stderr"."""

    def display(self, data: Json, metadata: Json, transient: Json, update: bool) -> None:
        """A MIME bundle, new or in place of an earlier one."""

    def clear_output(self, wait: bool) -> None:
        """Remove what was shown."""

    def begin(self, count: int, source: Checkpoint) -> None:
        """A cell is run again, as execution `count`."""

    def result(self, count: int, result: Json) -> None:
        """The result of a cell that was run again."""


class Session:
    """One notebook's present and past."""

    def __init__(self, engine: Engine, language: Language) -> None:
        self.engine = engine
        self.language = language
        self.timeline = Timeline()
        self.last: dict[str, float] = {}
        """What the newest steps took, in seconds, for %status."""
        self.language_version = ""
        self._names: dict[str, str] = {}  # a checkpoint's key -> its name in staging
        self._live: Sandbox | None = None
        self._spare: asyncio.Task[Sandbox] | None = None
        self._pending: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._sink: Sink | None = None
        self._notes: list[str] = []
        self._stderr_tail = ""
        self._running = False
        self._interrupted_at: float | None = None

    # -- life

    async def start(self) -> None:
        """Bring up the engine, a guest and the root checkpoint."""
        begin = time.monotonic()
        await self.engine.start()
        sandbox = await self.engine.sandbox()
        await self._boot(sandbox)
        self._move_in(sandbox)
        self.last["start"] = time.monotonic() - begin
        cost = await self._take(ROOT, sandbox)
        self.timeline.append(Checkpoint(ROOT, None, None, time.time(), cost=cost))
        self._warm(_SPARE_DELAY)

    async def close(self) -> None:
        """End everything; nothing remains."""
        for task in (self._spare, self._pending):
            if task is not None:
                task.cancel()
        await self.engine.close()

    # -- cells

    async def execute(
        self,
        code: str,
        count: int,
        sink: Sink,
        *,
        silent: bool = False,
        user_expressions: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a cell as execution `count`. Its checkpoint is taken after this returns, on the
        session's own account; a silent cell makes none (what it changed becomes part of the next).

        A guest that dies is put back to the state before the cell. Raises CRKernelError only if
        there is no guest to run anything.
        """
        await self._quiet()
        live = self._need()
        if not silent:
            await self._keep()
        self._sink, self._stderr_tail, self._interrupted_at = sink, "", None
        self._tell_notes()
        begin = time.monotonic()
        self._running = True
        try:
            reply = await live.call(
                "execute",
                code=code,
                cell=str(count),
                silent=silent,
                user_expressions=dict(user_expressions or {}),
            )
        except SandboxDied as death:
            outcome = await self._mourn(death, None if silent else (code, count, begin))
            return outcome
        finally:
            self._running = False
        outcome = _outcome(reply)
        duration = time.monotonic() - begin
        if not silent:
            self._background(self._checkpoint(code, count, duration, outcome.status))
        return outcome

    async def call(self, op: str, **fields: Any) -> Json:
        """Ask the guest something that changes nothing: completion, inspection and the like."""
        return await self._need().call(op, **fields)

    async def interrupt(self) -> None:
        """Stop the running cell. One that does not react is ended, guest and all, by the second
        interrupt, and the state before it comes back."""
        if self._live is None or self._live.death is not None:
            return
        now = time.monotonic()
        if self._running and self._interrupted_at is None:
            self._interrupted_at = now
        elif self._running and self._interrupted_at and now - self._interrupted_at > _STUBBORN_SECONDS:
            await self._live.kill_guest()
            return
        with contextlib.suppress(SandboxDied):
            await self._live.call("interrupt")

    # -- going back and forth

    async def rewind(self, ref: str) -> str:
        """Go to a checkpoint; returns its key. On failure the present is untouched."""
        await self._quiet()
        return await self._go(self.timeline.resolve(ref))

    async def undo(self, count: int = 1) -> str:
        """Go to before the last `count` cells."""
        await self._quiet()
        return await self._go(self.timeline.undo_target(count))

    async def redo(self, count: int = 1) -> str:
        """Go `count` cells forward again on the way that an undo or rewind came back."""
        await self._quiet()
        return await self._go(self.timeline.redo_target(count))

    async def rerun(
        self,
        first: str,
        last: str | None,
        body: str | None,
        counts: Callable[[], int],
        sink: Sink,
    ) -> Outcome:
        """Go to before `first` and run the recorded code on the path to `last` (the head) again,
        `body` in place of the first cell's. Stops at the first error, and returns how that went."""
        await self._quiet()
        start = self.timeline.resolve(first)
        end = self.timeline.resolve(last) if last is not None else self.timeline.head
        if last is None and start not in self.timeline.path(end):
            end = start  # a cell of another branch: that one alone
        cells = self.timeline.between(start, end)
        await self._go(self.timeline.before(cells[0].key))
        for position, cell in enumerate(cells):
            count = counts()
            sink.begin(count, cell)
            code = body if body is not None and position == 0 else cell.code or ""
            outcome = await self.execute(code, count, sink)
            if outcome.status != "ok":
                break
            if outcome.result is not None:
                sink.result(count, outcome.result)
        return outcome

    async def name(self, label: str | None) -> str:
        """Keep the current state, under a label if one is given; its key."""
        await self._quiet()
        await self._keep()
        key = self.timeline.restorable(self.timeline.head).key
        if label is not None:
            self.timeline.label(key, label)
        return key

    async def reset(self, count: int) -> str:
        """Start over with a fresh guest, under the limits as they are now; the timeline stays."""
        await self._quiet()
        await self._keep()
        self._drop_spare()
        sandbox = await self.engine.sandbox()
        try:
            await self._boot(sandbox)
            key = str(count)
            cost = await self._take(key, sandbox)
        except CRKernelError:
            await sandbox.end()
            self._warm()
            raise
        self._move_in(sandbox)
        self.timeline.append(Checkpoint(key, None, None, time.time(), cost=cost))
        self._warm()
        return key

    # -- below: how

    async def _go(self, key: str) -> str:
        """The transaction: what can fail happens next door, then we move in."""
        self.timeline.restorable(key)
        await self._keep()
        await self._restore(key)
        return key

    async def _restore(self, key: str) -> None:
        begin = time.monotonic()
        spare = await self._take_spare()
        try:
            await spare.restore(self._names[key])
            if spare.death is not None:
                raise died(spare.death)
        except CRKernelError:
            self._later(spare.end())
            self._warm()
            raise
        self._move_in(spare)
        self.timeline.move(key)
        self.last["rewind"] = time.monotonic() - begin
        self._warm()

    def _move_in(self, sandbox: Sandbox) -> None:
        old, self._live = self._live, sandbox
        sandbox.on_event = self._on_event
        sandbox.on_exit = self._on_exit
        if old is not None:
            self._later(old.end())

    async def _keep(self) -> None:
        """If the guest went on by itself since the head's checkpoint, keep where it is now."""
        live = self._need()
        if await live.rested():
            return
        key = self.timeline.later_key(self.timeline.head)
        head = self.timeline.head
        try:
            cost = await self._take(key, live)
            reason = None
        except DumpRefused as refusal:
            cost, reason = None, str(refusal)
        self.timeline.append(Checkpoint(key, head, None, time.time(), cost=cost, reason=reason))

    async def _take(self, key: str, sandbox: Sandbox) -> Cost:
        name = f"c{len(self._names)}"
        self._names[key] = name
        try:
            dump = await sandbox.dump(name)
        except CRKernelError:
            self._names[key] = name + "-refused"
            raise
        self.last["checkpoint"], self.last["frozen"] = dump.seconds, dump.frozen
        return _cost(dump)

    async def _checkpoint(self, code: str, count: int, duration: float, status: str) -> None:
        key, head, created = str(count), self.timeline.head, time.time()
        cost, reason = None, None
        try:
            cost = await self._take(key, self._need())
        except (CheckpointError, EngineError) as refusal:
            reason = str(refusal)
            self._warn(
                f"checkpoint {key} could not be taken: {reason}. The result stands, but %rewind "
                f"cannot come back here; close or end what is named and run another cell"
            )
        state: Any = "ok" if status == "ok" else "error"
        self.timeline.append(
            Checkpoint(key, head, code, created, duration, state, cost=cost, reason=reason)
        )

    async def _mourn(self, death: SandboxDied, cell: tuple[str, int, float] | None) -> Outcome:
        """The guest died in a cell: record it, restore the state before, say how."""
        message = self._death_words(death)
        if cell is not None:
            code, count, begin = cell
            duration = time.monotonic() - begin
            self.timeline.append(
                Checkpoint(
                    str(count), self.timeline.head, code, time.time(), duration, "died", reason=message
                )
            )
        restored = await self._recover()
        text = f"{message}; {restored}"
        return Outcome("error", error=_error("GuestDied", text))

    async def _recover(self) -> str:
        """After a death: the newest state that can be had; says which one."""
        key: str | None = self.timeline.head
        while key is not None:
            checkpoint = self.timeline.get(key)
            if checkpoint.reason is None:
                try:
                    await self._restore(key)
                except CRKernelError as error:
                    log.warning("checkpoint %s could not be restored: %s", key, error)
                else:
                    return f"the state before it (checkpoint {key}) is restored"
            key = checkpoint.parent
        sandbox = await self.engine.sandbox()
        await self._boot(sandbox)
        self._move_in(sandbox)
        return "no earlier state could be restored, so a fresh guest was started"

    def _death_words(self, death: SandboxDied) -> str:
        if self.language.out_of_memory in self._stderr_tail:
            limit = self.engine.limits.memory >> 20
            return (
                f"the guest ran out of memory (limit memory = {limit} MiB; "
                f"set a higher one with %config memory=… and %reset)"
            )
        return str(death)

    async def _boot(self, sandbox: Sandbox) -> None:
        limits = self.engine.limits
        environment = dict(self.language.environment)
        said: list[str] = []
        sandbox.on_event = lambda event: said.append(str(event.get("text", "")))
        try:
            hello = await sandbox.boot(self.language.command(limits), environment, limits)
        except SandboxDied as death:
            words = "".join(said).strip()[-_TAIL:]
            raise SandboxDied(f"{death}\n{words}".strip(), hint="run: crkernel doctor") from death
        self.language_version = str(hello.get("version", ""))

    # -- the spare

    def _warm(self, delay: float = 0.0) -> None:
        if self._spare is None:
            self._spare = asyncio.create_task(self._new_spare(delay))
            self._spare.add_done_callback(_log_failure)

    async def _new_spare(self, delay: float) -> Sandbox:
        await asyncio.sleep(delay)
        sandbox = await self.engine.sandbox()
        await sandbox.warm()
        return sandbox

    async def _take_spare(self) -> Sandbox:
        self._warm()
        assert self._spare is not None
        task, self._spare = self._spare, None
        with contextlib.suppress(CRKernelError):
            spare = await task
            if spare.death is None:
                return spare
            self._later(spare.end())
        return await self.engine.sandbox()

    def _drop_spare(self) -> None:
        """It was made under limits that no longer hold."""
        task, self._spare = self._spare, None
        if task is not None:
            self._later(_end(task))

    # -- what goes on beside

    def _need(self) -> Sandbox:
        if self._live is None:
            raise SandboxDied("there is no guest", hint="restart the kernel")
        return self._live

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it after what is under way; the next operation waits for it."""
        before = self._pending

        async def run() -> None:
            if before is not None:
                await before
            await work

        self._pending = asyncio.create_task(run())
        self._pending.add_done_callback(_log_failure)

    async def _quiet(self) -> None:
        while self._pending is not None:
            pending, self._pending = self._pending, None
            await pending
        self._need()

    async def status(self) -> dict[str, Any]:
        """For %status: values by section."""
        engine = await self.engine.status()
        limits = self.engine.limits
        times = {f"last {step}": f"{seconds * 1e3:.1f} ms" for step, seconds in self.last.items()}
        unit = 1 << 20
        return {
            "engine": {
                "name": engine["engine"],
                "image": engine["image"],
                "guest": self.language_version,
                "staging": f"{engine['staging used'] / unit:.0f} of {engine['staging size'] // unit} MiB",
            },
            "limits": {
                "memory": f"{limits.memory // unit} MiB",
                "processes": limits.processes,
                "file_size": f"{limits.file_size // unit} MiB",
                "disk_size": f"{limits.disk_size // unit} MiB",
            },
            "timeline": {"head": self.timeline.head, "checkpoints": len(self.timeline)},
            "times": times,
        }

    async def settled(self) -> None:
        """Wait until the newest checkpoint is taken."""
        await self._quiet()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _warn(self, text: str) -> None:
        """Shown as stderr of the next cell, or soon if none comes: by now the cell's own output
        may be closed for good."""
        self._notes.append(f"crkernel: {text}\n")
        asyncio.get_running_loop().call_later(1.0, self._tell_notes)

    def _tell_notes(self) -> None:
        if self._sink is None:
            return
        notes, self._notes = self._notes, []
        for note in notes:
            self._sink.stream("stderr", note)

    def _on_exit(self, how: Json) -> None:
        if self._running:
            return  # the cell's own call fails with it, see execute

        async def revive() -> None:
            words = self._death_words(died(how))
            self._warn(f"between cells {words}; {await self._recover()}")

        self._background(revive())

    def _on_event(self, event: Json) -> None:
        kind, sink = event.get("event"), self._sink
        if kind in ("output", "stream") and event.get("name") in ("stdout", "stderr"):
            text = str(event.get("text", ""))
            if event["name"] == "stderr":
                self._stderr_tail = (self._stderr_tail + text)[-_TAIL:]
            if sink is not None:
                sink.stream(event["name"], text)
        elif sink is None:
            return
        elif kind == "display" and (bundle := _bundle(event)) is not None:
            transient = event.get("transient")
            transient = transient if isinstance(transient, dict) else {}
            sink.display(bundle["data"], bundle["metadata"], transient, event.get("update") is True)
        elif kind == "clear_output":
            sink.clear_output(event.get("wait") is True)
        elif kind == "error":
            error = _checked_error(event)
            origin = str(event.get("origin", "callback"))
            sink.stream("stderr", f"Uncaught ({origin}):\n" + "\n".join(error["traceback"]) + "\n")
        else:
            log.warning("the guest sent an unknown event: %.200r", event)


def _cost(dump: Dump) -> Cost:
    return Cost(dump.seconds, dump.frozen, dump.memory, dump.files)


def _outcome(reply: Json) -> Outcome:
    """What the guest says of a cell, checked."""
    expressions = reply.get("user_expressions")
    expressions = expressions if isinstance(expressions, dict) else {}
    if reply.get("status") == "error":
        error = reply.get("error")
        return Outcome("error", error=_checked_error(error if isinstance(error, dict) else {}))
    result = reply.get("result")
    return Outcome("ok", _bundle(result) if isinstance(result, dict) else None, None, expressions)


def _bundle(message: Json) -> Json | None:
    data, metadata = message.get("data"), message.get("metadata")
    if not isinstance(data, dict):
        return None
    return {"data": data, "metadata": metadata if isinstance(metadata, dict) else {}}


def _error(name: str, message: str) -> Json:
    return {"name": name, "message": message, "code": None, "traceback": [f"{name}: {message}"]}


def _checked_error(error: Json) -> Json:
    traceback = error.get("traceback")
    checked = {
        "name": str(error.get("name", "Error")),
        "message": str(error.get("message", "")),
        "code": error.get("code") if isinstance(error.get("code"), str) else None,
        "traceback": [str(line) for line in traceback] if isinstance(traceback, list) else [],
        "interrupted": error.get("interrupted") is True,
    }
    return checked


async def _end(task: asyncio.Task[Sandbox]) -> None:
    with contextlib.suppress(CRKernelError):
        await (await task).end()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background work failed", exc_info=error)
