"""The one orchestrator: cells, checkpoints and rewinds of one notebook.

It joins a timeline (what happened) with an engine (where it happens). At any time there is one
live sandbox and, as a rule, a warm spare. Everything runs on one event loop. Operations exclude
each other; a checkpoint is taken after its cell's reply and the next operation waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

from crkernel import golden_root
from crkernel.background import Background
from crkernel.checkpoint import Checkpoint, Cost, Status
from crkernel.engines.base import Engine, Limits, Sandbox, died
from crkernel.errors import CheckpointError, CRKernelError, DumpRefused, EngineError, SandboxDied
from crkernel.guest import golden
from crkernel.outcome import (
    Json,
    Language,
    Outcome,
    Sink,
    bundle,
    error_of,
    limit_hint,
    outcome,
    simple_error,
)
from crkernel.spare import Spare
from crkernel.thinner import Thinner
from crkernel.timeline import Timeline

log = logging.getLogger(__name__)

ROOT = "0"
_STUBBORN_SECONDS = 2.0
"""A cell that an interrupt did not stop for so long is ended with its guest by the next one."""
_SPARE_DELAY = 0.25
"""Seconds that the first spare waits, so as not to slow down the first cell."""
_GOLDEN_DELAY = 3.0
_NOTE_SECONDS = 1.0
_TAIL = 4096


class Session:
    """One notebook's present and past."""

    def __init__(self, engine: Engine, language: Language) -> None:
        self.engine = engine
        self.language = language
        self.language_version = ""
        self.timeline = Timeline()
        self.last: dict[str, float] = {}
        """What the newest steps took, in seconds, for %status."""
        self._names: dict[str, str] = {}  # a checkpoint's key -> its name in staging
        self._taken = 0
        self._live: Sandbox | None = None
        self._background = Background()
        self._spare = Spare(engine, self._background)
        self._thinner = Thinner(engine, self._background)
        self._lock = asyncio.Lock()
        self._checkpointing: asyncio.Task[None] | None = None
        self._revived: str | None = None  # where a death between cells led, until a cell runs
        self._sink: Sink | None = None
        self._notes: list[str] = []
        self._refusal = ""  # why the newest dump was refused, if it was
        self._stderr_tail = ""
        self._running = False
        self._interrupted_at: float | None = None

    # -- life

    async def start(self) -> None:
        """Bring up the engine, a guest and the root checkpoint. If it failed, call it again."""
        begin = time.monotonic()
        state = await self.engine.start()
        if state is not None:
            self._inherit(state)
        sandbox, cost, reason = await self._root(ROOT)
        self.last["start"] = time.monotonic() - begin
        self._move_in(sandbox)
        self._append(Checkpoint(ROOT, None, None, time.time(), cost=cost, reason=reason))
        self._spare.warm(_SPARE_DELAY)
        if cost is not None and cost.memory and self.engine.limits == Limits.default():
            self._background.start(self._make_golden(_GOLDEN_DELAY))

    async def close(self, *, restart: bool = False) -> None:
        """End everything; nothing remains. Before a restart the past does, for the next session
        with the same secret: its keys get a prefix there ("r1.7")."""
        if restart:
            await self._finish()
        if self._live is not None:
            self._live.silence()
        await self._background.cancel()
        if restart:
            await self.engine.linger(json.dumps(self._past()).encode())
        await self.engine.close()

    async def _finish(self) -> None:
        """Stop what runs and keep where it got to, unless it does not stop."""
        try:
            async with asyncio.timeout(_STUBBORN_SECONDS):
                while self._running:
                    await self.interrupt()
                    await asyncio.sleep(0)
                async with self._operation():
                    await self._keep()
        except TimeoutError:
            log.warning("what ran did not stop; the newest checkpoint is where the past ends")

    def _past(self) -> Json:
        """What a session that follows this one has to know."""
        return {
            "timeline": self.timeline.to_dict(),
            "names": self._names,
            "bases": self._thinner.bases,
            "taken": self._taken,
            "golden": sorted(
                {
                    name.removeprefix(golden.PREFIX)
                    for name in self._names.values()
                    if name.startswith(golden.PREFIX)
                }
            ),
        }

    def _inherit(self, state: bytes) -> None:
        """Take over the past of the session before the restart."""
        past = json.loads(state)
        self.timeline = Timeline.from_dict(past["timeline"])
        renamed = self.timeline.adopt()
        self._names = {renamed.get(key, key): name for key, name in past["names"].items()}
        self._taken = int(past["taken"])
        for key in past["golden"]:
            self.engine.golden(key)  # which holds it
        self._thinner.bases.update(past["bases"])

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
        async with self._operation() as live:
            if not silent:
                live = await self._keep()
            self._sink, self._stderr_tail = sink, ""
            self._revived = None
            self._tell_notes()
            if self._was_interrupted:  # while it waited for the checkpoint before it
                error = simple_error("Interrupted", "the cell was interrupted before it began")
                return Outcome("error", error=error | {"interrupted": True})
            return await self._run(live, code, count, silent, dict(user_expressions or {}))

    def begin_request(self) -> None:
        """A front end wants something new; interrupts from here on are meant for it."""
        self._interrupted_at = None

    async def call(self, op: str, **fields: Any) -> Json:
        """Ask the guest something that changes nothing: completion, inspection and the like."""
        if self._live is None:
            raise SandboxDied("there is no guest", hint="restart the kernel")
        return await self._live.call(op, look=True, **fields)

    async def interrupt(self) -> None:
        """Stop the running cell. One that does not react is ended, guest and all, by the second
        interrupt, and the state before it comes back."""
        if self._live is None or self._live.death is not None:
            return
        now = time.monotonic()
        if not self._was_interrupted:
            self._interrupted_at = now
        elif self._running and now > (self._interrupted_at or now) + _STUBBORN_SECONDS:
            await self._live.kill_guest()
            return
        with contextlib.suppress(SandboxDied):
            await self._live.call("interrupt", look=not self._running)

    @property
    def _was_interrupted(self) -> bool:
        return self._interrupted_at is not None

    # -- going back and forth

    async def rewind(self, ref: str) -> str:
        """Go to a checkpoint; returns its key. On failure the present is untouched."""
        async with self._operation():
            return await self._go(self.timeline.resolve(ref))

    async def undo(self, count: int = 1) -> str:
        """Go to before the last `count` cells."""
        async with self._operation():
            return await self._go(self.timeline.undo_target(count))

    async def redo(self, count: int = 1) -> str:
        """Go `count` cells forward again on the way that an undo or rewind came back."""
        async with self._operation():
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
        async with self._operation():
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
            result = await self.execute(code, count, sink)
            if result.status != "ok":
                break
            if result.result is not None:
                sink.result(count, result.result)
        return result

    async def name(self, label: str | None) -> str:
        """Keep the current state, under a label if one is given; its key."""
        async with self._operation():
            await self._keep()
            key = self.timeline.restorable(self.timeline.head).key
            if label is not None:
                self.timeline.label(key, label)
            return key

    async def reset(self, count: int) -> str:
        """Start over with a fresh guest, under the limits as they are now; the timeline stays."""
        async with self._operation():
            await self._keep()
            self._spare.drop()
            key = str(count)
            try:
                sandbox, cost, reason = await self._root(key)
            finally:
                self._spare.warm()
            self._move_in(sandbox)
            self._append(Checkpoint(key, None, None, time.time(), cost=cost, reason=reason))
            return key

    async def settled(self) -> None:
        """Wait until the newest checkpoint is taken."""
        async with self._operation():
            pass

    async def status(self) -> Json:
        """For %status: values by section."""
        engine, limits, unit = await self.engine.status(), self.engine.limits, 1 << 20
        used, size = engine["staging used"] / unit, engine["staging size"] // unit
        return {
            "engine": {
                "name": engine["engine"],
                "image": engine["image"],
                "guest": self.language_version,
                "cgroup": engine["cgroup"],
                "staging": f"{used:.0f} of {size} MiB",
            },
            "limits": {
                "memory": f"{limits.memory // unit} MiB",
                "max_processes": limits.max_processes,
                "file_size": f"{limits.file_size // unit} MiB",
                "disk_size": f"{limits.disk_size // unit} MiB",
            },
            "timeline": {"head": self.timeline.head, "checkpoints": len(self.timeline)},
            "times": {f"last {step}": f"{s * 1e3:.1f} ms" for step, s in self.last.items()},
        }

    # -- one at a time

    @contextlib.asynccontextmanager
    async def _operation(self) -> AsyncIterator[Sandbox]:
        """Exclude other operations, wait for the checkpoint under way, and start from a guest that
        lives: one that died meanwhile is put back first."""
        async with self._lock:
            self._thinner.touch()
            if self._checkpointing is not None:
                task, self._checkpointing = self._checkpointing, None
                await task
            if self._live is None:
                raise SandboxDied("there is no guest", hint="restart the kernel")
            if self._live.death is not None:
                await self._revive(self._live.death)
            yield self._live

    async def _run(
        self, live: Sandbox, code: str, count: int, silent: bool, expressions: dict[str, str]
    ) -> Outcome:
        begin = time.monotonic()
        self._running = True
        try:
            reply = await live.call(
                "execute",
                code=code,
                cell=str(count),
                silent=silent,
                user_expressions=expressions,
            )
        except SandboxDied as death:
            record = None if silent else (code, count, time.monotonic() - begin)
            return await self._mourn(death, record)
        finally:
            self._running = False
        result = outcome(reply, self.engine.limits, self.language)
        if not silent:
            duration = time.monotonic() - begin
            work = self._checkpoint(live, code, count, duration, result.status)
            self._checkpointing = self._background.start(work)
        return result

    # -- the transaction

    async def _go(self, key: str) -> str:
        """What can fail happens next door, then we move in."""
        self.timeline.restorable(key)
        await self._keep()
        await self._restore(key)
        self._revived = None
        return key

    async def _restore(self, key: str) -> None:
        begin = time.monotonic()
        spare = await self._spare.take()
        try:
            async with self._thinner.hold(self._names[key]):
                await spare.restore(self._names[key])
            if spare.death is not None:
                raise died(spare.death)
        except CRKernelError:
            self._background.start(spare.end())
            raise
        finally:
            self._spare.warm()
        self._move_in(spare)
        self.timeline.move(key)
        self.last["rewind"] = time.monotonic() - begin

    def _move_in(self, sandbox: Sandbox) -> None:
        old, self._live = self._live, sandbox
        sandbox.on_event = self._on_event
        sandbox.on_exit = self._on_exit
        if old is not None:
            old.silence()
            self._background.start(old.end())

    async def _root(self, key: str) -> tuple[Sandbox, Cost | None, str | None]:
        """A sandbox with a guest that has run nothing, and its checkpoint under `key`: what that
        cost, or why there is none."""
        name = self.engine.golden(golden_root.key(self.language, self.engine.limits))
        if name is not None and (restored := await self._from_golden(name)) is not None:
            self._names[key] = name
            return restored, Cost(0.0, 0.0, 0, 0), None
        sandbox = await self.engine.sandbox()
        try:
            await self._boot(sandbox)
            return sandbox, await self._take(key, sandbox), None
        except DumpRefused as refusal:
            self._warn_of_refusal(key, str(refusal))
            return sandbox, None, str(refusal)
        except CRKernelError:
            self._background.start(sandbox.end())
            raise

    async def _from_golden(self, name: str) -> Sandbox | None:
        """A sandbox with the guest of a golden root; None if that does not come up here."""
        sandbox = await self.engine.sandbox()
        try:
            restored = await sandbox.restore(name)
        except CRKernelError as error:
            log.warning("the golden root %s is of no use here: %s", name, error)
            self._background.start(sandbox.end())
            return None
        self.language_version = str(restored.hello.get("version", ""))
        return sandbox

    async def keep_golden(self) -> bool:
        """Make the golden root for sessions with these limits, of this one's root; False if there
        is one. Raises EngineError."""
        key = golden_root.key(self.language, self.engine.limits)
        if self.engine.golden(key) is not None:
            return False
        await self.engine.keep_golden(self._names[ROOT], key)
        return True

    async def _make_golden(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self.keep_golden()

    async def _boot(self, sandbox: Sandbox) -> None:
        limits = self.engine.limits
        said: list[str] = []
        sandbox.on_event = lambda event: said.append(str(event.get("text", "")))
        command = self.language.command(limits)
        enough = replace(limits, memory=limits.memory + self.language.reserved)
        try:
            hello = await sandbox.boot(command, dict(self.language.environment), enough)
        except SandboxDied as death:
            words = "".join(said).strip()[-_TAIL:]
            raise SandboxDied(f"{death}\n{words}".strip(), hint="run: crkernel doctor") from death
        self.language_version = str(hello.get("version", ""))

    # -- checkpoints

    async def _keep(self) -> Sandbox:
        """If the guest went on by itself since the head's checkpoint, keep where it is now."""
        assert self._live is not None
        head = self.timeline.head
        try:
            if await self._live.rested():
                return self._live
            key, cost, reason = self.timeline.later_key(head), None, None
            try:
                cost = await self._take(key, self._live)
            except SandboxDied:
                raise
            except (CheckpointError, EngineError) as refusal:
                reason = str(refusal)
                self._warn_of_refusal(key, reason)
            self._append(Checkpoint(key, head, None, time.time(), cost=cost, reason=reason))
        except SandboxDied:
            if self._live.death is None:
                raise
            await self._revive(self._live.death)
        return self._live

    async def _checkpoint(
        self, live: Sandbox, code: str, count: int, duration: float, status: str
    ) -> None:
        key, head, created = str(count), self.timeline.head, time.time()
        cost, reason = None, None
        try:
            cost = await self._take(key, live)
        except (CheckpointError, EngineError) as refusal:
            reason = str(refusal)
            self._warn_of_refusal(key, reason)
        state: Status = "ok" if status == "ok" else "error"
        self._append(
            Checkpoint(key, head, code, created, duration, state, cost=cost, reason=reason)
        )

    def _warn_of_refusal(self, key: str, reason: str) -> None:
        if reason == self._refusal:
            self._warn(f"checkpoint {key} could not be taken either, for the same reason")
            return
        self._refusal = reason
        self._warn(
            f"checkpoint {key} could not be taken: {reason}. The result stands, but %rewind cannot "
            f"come back here, until what the reason names is mended and another cell has run"
        )

    def _append(self, checkpoint: Checkpoint) -> None:
        """Into the timeline, and in line to be made small."""
        self.timeline.append(checkpoint)
        key, cost = checkpoint.key, checkpoint.cost
        if cost is not None:
            parent = self._names.get(checkpoint.parent or "")

            def done(left: int) -> None:
                self.timeline.amend(key, cost=replace(cost, memory=left))

            self._thinner.add(self._names[key], parent, cost.memory, done)

    async def _take(self, key: str, sandbox: Sandbox) -> Cost:
        self._taken += 1
        name = f"c{self._taken}"
        dump = await sandbox.dump(name)
        self._names[key] = name
        self._refusal = ""
        self.last["checkpoint"], self.last["frozen"] = dump.seconds, dump.frozen
        return Cost(dump.seconds, dump.frozen, dump.memory, dump.files)

    # -- deaths

    async def _mourn(self, death: SandboxDied, cell: tuple[str, int, float] | None) -> Outcome:
        """The guest died in a cell: record it, restore the state before, say how."""
        message = self._death_words(death)
        if cell is not None:
            code, count, duration = cell
            head, now = self.timeline.head, time.time()
            self.timeline.append(
                Checkpoint(str(count), head, code, now, duration, "died", reason=message)
            )
        restored = await self._recover(self.timeline.head)
        return Outcome("error", error=simple_error("GuestDied", f"{message}; {restored}"))

    async def _revive(self, how: Json) -> None:
        """The guest died between cells. If it did so before in the state that was restored then,
        what kills it is part of that state, and the one before is taken."""
        head = self.timeline.head
        key = self.timeline.get(head).parent if head == self._revived else head
        words = self._death_words(died(how))
        restored = await self._recover(key)
        self._revived = self.timeline.head
        self._warn(f"between cells {words}; {restored}")

    async def _recover(self, key: str | None) -> str:
        """Restore the newest state from `key` upward that can be had, and say which one it is."""
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
        words = death.crashed and self.language.out_of_memory.search(self._stderr_tail)
        if words or self.engine.ran_out_of_memory:
            return f"the guest ran out of memory ({limit_hint('memory', self.engine.limits)})"
        return str(death)

    def _on_exit(self, _how: Json) -> None:
        if not self._running:  # the cell's own call fails with it otherwise, see _run
            self._background.start(self.settled())

    # -- what the guest says

    def _on_event(self, event: Json) -> None:
        kind, sink = event.get("event"), self._sink
        if kind in ("output", "stream") and event.get("name") in ("stdout", "stderr"):
            self._on_text(event["name"], str(event.get("text", "")))
        elif sink is None:
            return
        elif kind == "display" and (shown := bundle(event)) is not None:
            transient = event.get("transient")
            transient = transient if isinstance(transient, dict) else {}
            update = event.get("update") is True
            sink.display(shown["data"], shown["metadata"], transient, update)
        elif kind == "clear_output":
            sink.clear_output(event.get("wait") is True)
        elif kind == "error":
            lines = error_of(event, self.engine.limits, self.language)["traceback"]
            origin = str(event.get("origin", "callback"))
            sink.stream("stderr", f"Uncaught ({origin}):\n" + "\n".join(lines) + "\n")
        else:
            log.warning("the guest sent an unknown event: %.200r", event)

    def _on_text(self, name: str, text: str) -> None:
        if name == "stderr":
            text = text.replace(self.language.noise, "")
            self._stderr_tail = (self._stderr_tail + text)[-_TAIL:]
        if text and self._sink is not None:
            self._sink.stream(name, text)

    def _warn(self, text: str) -> None:
        """Shown as stderr of the next cell, or soon if none comes: by now the cell's own output
        may be closed for good."""
        self._notes.append(f"crkernel: {text}\n")
        asyncio.get_running_loop().call_later(_NOTE_SECONDS, self._tell_notes)

    def _tell_notes(self) -> None:
        if self._sink is None:
            return
        notes, self._notes = self._notes, []
        for note in notes:
            self._sink.stream("stderr", note)
