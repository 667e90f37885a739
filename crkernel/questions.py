"""Questions of a running cell, on their way to the front end and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from crkernel.background import Background
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import SandboxDied, UserError
from crkernel.guest.wire import WireError
from crkernel.outcome import Json, Sink

_MOST = 1000
"""Questions that may wait for their answers at a time."""
_LONGEST = 10_000
"""Characters of a prompt that are shown."""


class Questions:
    """Passes them on while their cell runs; with its end they are void."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._asker: Sandbox | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def of(self, sandbox: Sandbox) -> Iterator[None]:
        """While a cell runs in this sandbox, `pass_on` does."""
        self._asker = sandbox
        try:
            yield
        finally:
            self._asker = None
            for task in self._tasks:
                task.cancel()

    def pass_on(self, event: Json, sink: Sink) -> None:
        """Ask what the guest asks, and give it the answer. Raises WireError for one too many."""
        number, prompt = event.get("question"), event.get("prompt")
        if self._asker is None or not isinstance(number, int) or not isinstance(prompt, str):
            return
        if len(self._tasks) >= _MOST:
            raise WireError(f"more than {_MOST} questions wait for an answer")
        prompt, secret = prompt[:_LONGEST], event.get("password") is True
        work = self._answer(self._asker, number, sink, prompt, secret)
        task = self._background.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, asker: Sandbox, number: int, sink: Sink, prompt: str, password: bool
    ) -> None:
        try:
            answer: Json = {"value": await sink.ask(prompt, password)}
        except UserError as refusal:
            hint = f": {refusal.hint}" if refusal.hint else ""
            answer = {"error": f"{refusal}{hint}"}
        with contextlib.suppress(SandboxDied):  # its cell tells
            await asker.call("input", question=number, **answer)
