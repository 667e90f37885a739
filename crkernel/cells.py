"""Runs cells in the live guest and has a checkpoint taken after each; interrupts and deaths too."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from crkernel.background import Background
from crkernel.checkpoint import Checkpoint, Status
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import CRKernelError, SandboxDied
from crkernel.listener import Listener
from crkernel.outcome import Json, Language, Outcome, add_network_hint, outcome, simple_error
from crkernel.past import Past
from crkernel.present import Present
from crkernel.questions import Questions

STUBBORN_SECONDS = 2.0
"""A cell that an interrupt did not stop for so long is ended with its guest by the next one."""


class Cells:
    """One at a time: who calls `run` or `checkpoint` excludes everything else then."""

    def __init__(
        self,
        engine: Engine,
        language: Language,
        past: Past,
        present: Present,
        listener: Listener,
        questions: Questions,
        background: Background,
        on_checkpoint: Callable[[Sandbox], None],
    ) -> None:
        """`on_checkpoint` takes the guest of which a checkpoint was taken."""
        self.running = False
        self._engine = engine
        self._language = language
        self._past = past
        self._present = present
        self._listener = listener
        self._questions = questions
        self._background = background
        self._on_checkpoint = on_checkpoint
        self._checkpointing: asyncio.Task[None] | None = None
        self._interrupted_at: float | None = None
        self._to_stop: list[asyncio.Future[Json]] = []  # what the guest was asked by then

    async def run(
        self,
        live: Sandbox,
        code: str,
        count: int,
        *,
        silent: bool = False,
        told: str | None = None,
        at_rest: bool = False,
        **fields: Any,
    ) -> Outcome:
        """One cell, as execution `count`; `fields` are more of the guest's call. `told` is what the
        timeline has as its code, if it is something else. With `at_rest`, raises Moved if the guest
        has gone on by itself since the head's checkpoint, and nothing has run."""
        begin = time.monotonic()
        self.running = True
        self._present.reachable.set()
        audience = self._listener.audience
        try:
            with self._questions.of(live):
                reply = await live.call(
                    "execute",
                    at_rest=at_rest,
                    code=code,
                    cell=str(count),
                    silent=silent,
                    audience=audience.at,
                    colors=audience.colors,
                    **fields,
                )
        except SandboxDied as death:
            record = None if silent else (told or code, count, time.monotonic() - begin)
            return await self._mourn(death, record)
        finally:
            self.running = False
            self._present.reachable.clear()
        result = outcome(reply, self._engine.limits, self._language)
        may_have = "full" in self._engine.networks
        if result.error is not None and may_have and not live.has_network:
            add_network_hint(result.error)
        if not silent:
            self.checkpoint(live, told or code, count, time.monotonic() - begin, result.status)
        return result

    # -- checkpoints

    def checkpoint(
        self, live: Sandbox, code: str, count: int, duration: float, status: str = "ok"
    ) -> None:
        """Have the one of a cell that has just run taken as soon as its reply is out: who waits for
        that would have to share the processors with a dump. `settled` waits for it."""
        state: Status = "ok" if status == "ok" else "error"
        head = self._past.timeline.head
        draft = Checkpoint(str(count), head, code, time.time(), duration, state)
        self._checkpointing = self._background.start(self._take(draft, live))

    async def settled(self, timeout: float | None = None) -> None:
        """Wait for the checkpoint under way, so many seconds at most. Who gives up waiting does not
        stop it."""
        if self._checkpointing is not None and not self._checkpointing.done():
            await asyncio.wait([self._checkpointing], timeout=timeout)

    async def _take(self, draft: Checkpoint, live: Sandbox) -> None:
        try:
            await self._past.take(draft, live)
        except SandboxDied as death:
            self._past.lose(draft, str(death))
        else:
            self._on_checkpoint(live)

    # -- interrupts

    def begin_request(self) -> None:
        """A front end wants something new; interrupts from here on are meant for it."""
        self._interrupted_at = None
        self._to_stop.clear()

    @property
    def interrupted(self) -> Outcome | None:
        """What becomes of a cell that was interrupted before it began; None if it was not."""
        if self._interrupted_at is None:
            return None
        error = simple_error("Interrupted", "the cell was interrupted before it began")
        return Outcome("error", error=error | {"interrupted": True})

    async def interrupt(self) -> None:
        """Stop the running cell, or one that waits, and whatever else the guest was asked. If it
        does not answer, the second interrupt ends it, and the state before comes back."""
        now, live = time.monotonic(), self._present.live
        self._to_stop = [call for call in self._to_stop if not call.done()]
        if self._interrupted_at is None or not self._to_stop:
            self._interrupted_at = now
        if live is None or live.death is not None:
            return
        if self._to_stop and now > self._interrupted_at + STUBBORN_SECONDS:
            await live.kill_guest()
            return
        self._to_stop = self._to_stop or live.unanswered
        with contextlib.suppress(SandboxDied):
            await live.call("interrupt", look=not self.running)

    # -- deaths

    async def _mourn(self, death: SandboxDied, cell: tuple[str, int, float] | None) -> Outcome:
        """The guest died in a cell: record it, restore the state before, say how."""
        message = await self._present.death_words(death)
        timeline = self._past.timeline
        if cell is not None:
            code, count, duration = cell
            head, now = timeline.head, time.time()
            timeline.append(
                Checkpoint(str(count), head, code, now, duration, "died", reason=message)
            )
        try:
            restored = await self._present.recover(timeline.head)
        except CRKernelError as error:
            hint = f" ({error.hint})" if error.hint else ""
            restored = f"there is no guest until this is mended: {error}{hint}"
        return Outcome("error", error=simple_error("GuestDied", f"{message}; {restored}"))
