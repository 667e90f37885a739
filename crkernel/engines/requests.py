"""Requests to a nest and their answers, whatever carries them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from crkernel.errors import CRKernelError, EngineError, from_wire
from crkernel.guest.wire import WireError

Json = dict[str, Any]
Send = Callable[[Json, list[int]], None]


class Requests:
    """The kernel's side of the link to one nest after the other (`docs/protocol.md`, link 1)."""

    def __init__(self) -> None:
        self._send: Send | None = None
        self._gone = EngineError("the nest is gone", hint="restart the kernel")
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._next_id = 0
        self.on_news: Callable[[Json], None] = lambda _: None
        """Takes what the nest says without being asked."""

    def connect(self, send: Send) -> None:
        """There is a nest: `send` takes requests to it, with descriptors; it may raise OSError."""
        self._send = send

    async def ask(self, op: str, descriptors: list[int] | None = None, **fields: Any) -> Json:
        """Have the nest do something. Raises EngineError."""
        return await self._answer(self._post(op, descriptors, fields))

    def begin(
        self, op: str, descriptors: list[int] | None = None, **fields: Any
    ) -> asyncio.Future[Json]:
        """As `ask`, but the nest is told at once, and `descriptors` are of no more use here."""
        return asyncio.ensure_future(self._answer(self._post(op, descriptors, fields)))

    def _post(self, op: str, descriptors: list[int] | None, fields: Json) -> int:
        if self._send is None:
            raise self._gone
        self._next_id += 1
        try:
            self._send({"op": op, "id": self._next_id, **fields}, descriptors or [])
        except (OSError, WireError) as error:
            raise EngineError(f"the nest cannot be told: {error}") from error
        self._answers[self._next_id] = asyncio.get_running_loop().create_future()
        return self._next_id

    async def _answer(self, number: int) -> Json:
        try:
            message = await self._answers[number]
        finally:
            self._answers.pop(number, None)
        if "error" in message:
            raise from_wire(message["error"])
        return message

    def deliver(self, message: Json, descriptors: list[int] | None = None) -> None:
        """An answer has come; its descriptors are in it as `descriptors`. Or news have, or the nest
        could not read a request."""
        if "id" not in message:
            if "error" in message:
                self.fail(from_wire(message["error"]))
            else:
                self.on_news(message)
            return
        future = self._answers.get(message["id"])
        if future is not None and not future.done():
            future.set_result(message | {"descriptors": descriptors or []})
        else:
            for descriptor in descriptors or []:
                os.close(descriptor)

    def hang_up(self, why: EngineError) -> None:
        """The nest is gone: all who wait, and all who come, get to know why."""
        self._send, self._gone = None, why
        self.fail(why)

    def fail(self, why: CRKernelError) -> None:
        """Whose answer is lost is not known, so nobody waits for one any more."""
        for future in self._answers.values():
            if not future.done():
                future.set_exception(why)
