"""The one orchestrator: cells, checkpoints and rewinds of one notebook.

It joins a timeline (what happened) with an engine (where it happens). At any time there is one
live sandbox and, as a rule, a warm spare. Everything runs on one event loop. Operations exclude
each other; a checkpoint is taken after its cell's reply and the next operation waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from crkernel.ahead import Ahead
from crkernel.background import Background
from crkernel.cells import STUBBORN_SECONDS, Cells
from crkernel.comms import Comms
from crkernel.delivery import FOLDER, Delivery
from crkernel.engines.answers import Moved
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import SandboxDied, UserError
from crkernel.guest.parcel import LEAVES
from crkernel.listener import Listener
from crkernel.npm import Npm
from crkernel.outcome import Json, Language, Outcome, Sink
from crkernel.past import ROOT, Past
from crkernel.present import Present
from crkernel.questions import Questions
from crkernel.status import status
from crkernel.timeline import Timeline
from crkernel.twins import Twins

log = logging.getLogger(__name__)

_LAST_SECONDS = 2.0
"""How long the end waits for the checkpoint under way."""
_SPARE_DELAY = 0.25
"""Seconds that the first spare waits, so as not to slow down the first cell."""
_GOLDEN_DELAY = 3.0
_GOLDEN_STAGING = 256 << 20
"""Bytes: a golden root is made in staging, where it needs 27 MB that a small one cannot spare."""


class Session:
    """One notebook's present and past."""

    def __init__(self, engine: Engine, language: Language) -> None:
        self.engine = engine
        self.language = language
        self._background = Background()
        self._questions = Questions(self._background)
        self._comms = Comms()
        self._listener = Listener(engine, language, self._questions, self._comms)
        engine.tell = self._listener.warn
        self._past = Past(
            engine,
            self._background,
            self._comms,
            self._listener.warn,
            lambda key: self._twins.on_rebased(key),
        )
        self._present = Present(
            engine,
            language,
            self._past,
            self._listener,
            self._comms,
            self._background,
            self._on_exit,
        )
        self._lock = asyncio.Lock()
        self._twins = Twins(
            engine,
            self._past,
            self._present,
            self._background,
            self._operation,
            self._lock.locked,
        )
        self._cells = Cells(
            engine,
            language,
            self._past,
            self._present,
            self._listener,
            self._questions,
            self._background,
            self._twins.on_checkpoint,
        )
        spare, settled = self._present.spare, self._cells.settled
        self._ahead = Ahead(self._past, spare, settled, self._background)
        self._delivery = Delivery(engine)

    @property
    def timeline(self) -> Timeline:
        """What happened."""
        return self._past.timeline

    @property
    def comms(self) -> Mapping[str, str]:
        """The targets of the comms that are open, by id."""
        return self._comms.targets

    @property
    def language_version(self) -> str:
        """The version of the guest's runtime; empty before it has said hello."""
        return self._present.boot.version

    # -- life

    async def start(self) -> None:
        """Bring up the engine, a guest and the root checkpoint. If it failed, call it again."""
        begin = time.monotonic()
        state = await self.engine.start()
        if state is not None:
            self._past.inherit(state)
        key, enough = self._present.boot.key, self.engine.limits.staging_size >= _GOLDEN_STAGING
        await self._present.root(ROOT)
        self._past.last["start"] = time.monotonic() - begin
        self._present.reachable.set()
        self._present.spare.warm(_SPARE_DELAY)
        if enough and self._past.root_name() is not None:
            self._background.start(self._make_golden(key))

    async def close(self, *, restart: bool = False) -> None:
        """End everything; nothing remains. Before a restart the past does, for the next session
        with the same secret: its keys get a prefix there ("r1.7")."""
        if restart:
            await self._finish()
        else:  # a checkpoint may have to tell why it is refused
            await self._cells.settled(_LAST_SECONDS)
        self._present.is_left = True
        if self._present.live is not None:
            self._present.live.silence()
        await self._background.cancel()
        self._listener.end()
        if restart:
            await self.engine.linger(self._past.to_bytes())
        await self.engine.close()

    async def _finish(self) -> None:
        """Stop what runs and keep where it got to, unless it does not stop."""
        try:
            async with asyncio.timeout(STUBBORN_SECONDS):
                while self._cells.running:
                    await self.interrupt()
                    await asyncio.sleep(0)
            async with asyncio.timeout(_LAST_SECONDS):
                async with self._operation():
                    await self._present.keep()
                await self._past.settle()
        except TimeoutError:
            log.warning("what ran did not stop; the newest checkpoint is where the past ends")

    # -- cells

    async def execute(
        self,
        code: str,
        count: int,
        sink: Sink,
        *,
        silent: bool = False,
        user_expressions: Mapping[str, str] | None = None,
        source: str | None = None,
        measure: Json | None = None,
    ) -> Outcome:
        """Run a cell as execution `count`, measured if so asked; `source` is what was typed, if
        that is more than the code. Its checkpoint is taken after this returns, on the session's
        own account; a silent cell makes none (what it changed becomes part of the next).

        A guest that dies is put back to the state before the cell. Raises CRKernelError only if
        there is no guest to run anything.
        """
        fields: Json = {"user_expressions": dict(user_expressions or {})}
        if source is not None:
            fields["source"] = source
        if measure is not None:
            fields["measure"] = measure

        async def run(live: Sandbox, *, at_rest: bool) -> Outcome:
            self._listener.begin(sink)
            if self._cells.interrupted:  # while it waited for the checkpoint before it
                return self._cells.interrupted
            done = await self._cells.run(
                live, code, count, silent=silent, at_rest=at_rest, **fields
            )
            self._present.revived = None
            return done

        async with self._operation() as live:
            try:
                return await run(live, at_rest=not (silent or self._present.has_run_nothing))
            except Moved:
                return await run(await self._present.keep(), at_rest=False)

    async def npm(self, call: Npm, counts: Callable[[], int], sink: Sink) -> Outcome:
        """Run npm on the packages of the guest, outside of it. If that changes them, it is a cell
        with a checkpoint. Raises CRKernelError, and the packages are as they were."""
        async with self._operation():
            live = await self._present.keep()
            self._listener.begin(sink)
            if self._cells.interrupted:
                return self._cells.interrupted
            begin = time.monotonic()
            head = self.timeline.restorable(self.timeline.head).key
            files = await self._delivery.run(call, self._past.name(head), sink)
            if files is not None:
                await live.place(files, FOLDER, LEAVES)
            if call.scripts:
                code = self.language.install_scripts
                return await self._cells.run(live, code, counts(), told=call.line)
            if files is not None:
                self._cells.checkpoint(live, call.line, counts(), time.monotonic() - begin)
            return Outcome("ok")

    def begin_request(self) -> None:
        """A front end wants something new; interrupts from here on are meant for it."""
        self._cells.begin_request()

    async def call(self, op: str, **fields: Any) -> Json:
        """Ask the guest something that changes nothing: completion, inspection and the like."""
        live = self._present.live
        if live is None:
            raise SandboxDied("there is no guest", hint="restart the kernel")
        try:
            return await live.look(op, **fields)
        except SandboxDied:
            if self._present.live in (None, live):
                raise
        return await self.call(op, **fields)  # its twin knows as well

    async def comm(self, message: Json, sink: Sink) -> None:
        """Have the guest handle a message of a comm, in a running cell or between two; what its
        handler shows goes to `sink`. Raises SandboxDied."""
        await self._present.reachable.wait()
        assert self._present.live is not None
        call = self._comms.call(message)
        with self._listener.handling(sink) as number:
            reply = await self._present.live.call("comm", delivery=number, **call)
        self._comms.taken(message, reply.get("known") is not False, sink)

    async def interrupt(self) -> None:
        """Stop npm, or see `Cells.interrupt`."""
        if self._delivery.under_way:
            await self._delivery.interrupt()
            return
        await self._cells.interrupt()

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
        again: Callable[[str, int], Awaitable[Outcome]] | None = None,
    ) -> Outcome:
        """Go to before `first` and run the recorded code on the path to `last` (the head) again,
        `body` in place of the first cell's. Stops at the first error, and returns how that went.
        `again` runs one cell, if that takes more than `execute`."""

        async def run(code: str, count: int) -> Outcome:
            return await self.execute(code, count, sink)

        async with self._operation():
            start = self.timeline.resolve(first)
            end = self.timeline.resolve(last) if last is not None else self.timeline.head
            if last is None and start not in self.timeline.path(end):
                end = start  # a cell of another branch: that one alone
            cells = self.timeline.between(start, end)
            await self._go(self.timeline.before(cells[0].key))
        for position, cell in enumerate(cells):
            count = counts()
            code = body if body is not None and position == 0 else cell.code or ""
            sink.begin(count, cell.key, code)
            result = await (again or run)(code, count)
            if result.status != "ok":
                break
            if result.result is not None:
                sink.result(count, result.result)
        return result

    async def name(self, label: str | None) -> str:
        """Keep the current state, under a label if one is given; its key."""
        async with self._operation():
            await self._present.keep()
            key = self.timeline.restorable(self.timeline.head).key
            if label is not None:
                self.timeline.label(key, label)
            return key

    async def drop(self, first: str, last: str | None) -> tuple[int, int, dict[str, str]]:
        """Drop the checkpoints from `first` to `last`: their memory and files, not their records.
        How many, bytes that are free now, and why the others among them were not dropped. Raises
        UserError."""
        async with self._operation():
            start = self.timeline.resolve(first)
            end = self.timeline.resolve(last) if last is not None else start
            keys = self.timeline.span(start, end)
            await self._present.spare.leave(keys)
            dropped, freed = await self._past.drop(keys)
            skipped = {
                key: self.timeline.get(key).reason or "kernels start from it"
                for key in keys
                if key not in dropped
            }
            return len(dropped), freed, skipped

    def fetch(self, *refs: str, known: Collection[str] = ()) -> AsyncGenerator[bytes, None]:
        """Some checkpoints for another engine's `push`, see `Past.fetch`; cells go on meanwhile."""
        return self._past.fetch([self.timeline.resolve(ref) for ref in refs], known)

    async def reset(self, count: int) -> str:
        """Start over with a fresh guest, under the limits as they are now; the timeline stays."""
        async with self._operation():
            await self._present.keep()
            self._present.spare.drop()
            key = str(count)
            try:
                await self._present.root(key)
            finally:
                self._present.spare.warm()
            return key

    def change_network(self, network: str) -> None:
        """What guests reach that come up from now on, also in a rewind. Raises UserError."""
        if network not in self.engine.networks:
            raise UserError(
                f"the engine {self.engine.name} gives guests no network", hint="engine = local does"
            )
        self.engine.network = network
        self._present.spare.drop()
        self._present.spare.warm()

    async def settled(self) -> None:
        """Wait until the newest checkpoint is taken."""
        async with self._operation():
            pass

    async def status(self) -> Json:
        """For %status: values by section."""
        spare = self._present.spare
        return await status(
            self.engine, self.language_version, self._past, self._twins.swaps, spare.ready_for
        )

    # -- one at a time

    @contextlib.asynccontextmanager
    async def _operation(self) -> AsyncIterator[Sandbox]:
        """Exclude other operations, wait for the checkpoint under way, and start from a guest that
        lives: one that died meanwhile is put back first."""
        async with self._lock:
            if self._present.live is None:
                raise SandboxDied("there is no guest", hint="restart the kernel")
            self._past.touch()
            self._ahead.stop()
            self._present.reachable.clear()
            try:
                await self._cells.settled()
                if self._present.live.death is not None:
                    await self._present.revive(self._present.live.death)
                yield self._present.live
            finally:
                self._present.reachable.set()
                self._ahead.go_on()

    # -- the transaction

    async def _go(self, key: str) -> str:
        """What can fail happens next door, then we move in."""
        self.timeline.restorable(key)
        await self._present.keep()
        await self._present.restore(key)
        self._present.revived = None
        return key

    async def keep_golden(self) -> bool:
        """Make the golden root for sessions with these limits, of this one's root; False if there
        is one. Raises EngineError."""
        return await self._present.keep_golden(self._present.boot.key)

    async def _make_golden(self, key: str) -> None:
        """Under the limits of the start, whatever they are by then."""
        await asyncio.sleep(_GOLDEN_DELAY)
        await self._present.keep_golden(key)

    def _on_exit(self, _how: Json) -> None:
        if not self._cells.running:  # its own call fails with it otherwise
            self._background.start(self.settled())
