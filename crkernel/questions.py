"""Questions of a running cell, on their way to the front end and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from crkernel.background import Background
from crkernel.engines.base import Sandbox
from crkernel.errors import SandboxDied, UserError
from crkernel.outcome import Json, Sink


class Questions:
    """Passes them on while their cell runs; with its end they are void."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._asker: Sandbox | None = None
        self._tasks: list[asyncio.Task[None]] = []

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
            self._tasks.clear()

    def pass_on(self, event: Json, sink: Sink) -> None:
        """Ask what the guest asks, and give it the answer."""
        number, prompt = event.get("question"), event.get("prompt")
        if self._asker is None or not isinstance(number, int) or not isinstance(prompt, str):
            return
        work = self._answer(self._asker, number, sink, prompt, event.get("password") is True)
        self._tasks.append(self._background.start(work))

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
