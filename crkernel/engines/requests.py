"""Requests to a nest and their answers, whatever carries them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from crkernel.errors import EngineError, from_wire

Json = dict[str, Any]
Findings = tuple[str | None, list[str], list[str]]
Send = Callable[[Json, list[int]], None]


class Requests:
    """The kernel's side of the link to one nest after the other (`docs/protocol.md`, link 1)."""

    def __init__(self) -> None:
        self._send: Send | None = None
        self._gone = EngineError("the nest is gone", hint="restart the kernel")
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._next_id = 0

    def connect(self, send: Send) -> None:
        """There is a nest: `send` takes requests to it, with descriptors; it may raise OSError."""
        self._send = send

    async def ask(self, op: str, descriptors: list[int] | None = None, **fields: Any) -> Json:
        """Have the nest do something. Raises EngineError."""
        if self._send is None:
            raise self._gone
        self._next_id += 1
        number = self._next_id
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"op": op, "id": number, **fields}, descriptors or [])
            message: Json = await answer
        except OSError as error:
            raise EngineError(f"the nest does not listen: {error}") from error
        finally:
            self._answers.pop(number, None)
        if "error" in message:
            raise from_wire(message["error"])
        return message

    async def shrink(self, op: str, name: str, base: str | None) -> tuple[int, int]:
        """Have a checkpoint made smaller, by `thin` or `rebase`; bytes before and after."""
        answer = await self.ask(op, name=name, base=base)
        return int(answer["before"]), int(answer["after"])

    async def drop(self, names: Sequence[str]) -> int:
        """Have checkpoints dropped; bytes that are free now."""
        return int((await self.ask("drop", names=list(names)))["freed"])

    async def costs(self, names: Sequence[str]) -> dict[str, list[int]]:
        """What some checkpoints take, see `Engine.costs`."""
        found: dict[str, list[int]] = (await self.ask("costs", names=list(names)))["costs"]
        return found

    async def verify(self, target: str) -> Findings:
        """Have something read through, see `Engine.verify`."""
        answer = await self.ask("verify", target=target)
        return answer["damage"], answer["needs"], answer["needed_by"]

    def deliver(self, message: Json, descriptors: list[int] | None = None) -> None:
        """An answer has come; its descriptors are in it as `descriptors`."""
        future = self._answers.get(message["id"])
        if future is not None and not future.done():
            future.set_result(message | {"descriptors": descriptors or []})
        else:
            for descriptor in descriptors or []:
                os.close(descriptor)

    def hang_up(self, why: EngineError) -> None:
        """The nest is gone: all who wait, and all who come, get to know why."""
        self._send, self._gone = None, why
        for future in self._answers.values():
            if not future.done():
                future.set_exception(why)
