"""Where a cell's output goes: IOPub messages that answer the request of that cell.

A sink outlives its cell. What a timer prints later still belongs to the cell that started last,
and front ends show it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from ipykernel.kernelbase import Kernel

from crkernel.errors import UserError
from crkernel.outcome import Audience

_FLUSH_SECONDS = 0.02
_FLUSH_CHARACTERS = 1 << 16
_FLOOD = (
    "\ncrkernel: the rest of this cell's output is not shown, it is too much; "
    "print less, write it to a file, or raise %config output_size\n"
)
_DISPLAYS = 16
"""Bytes that may wait for a slow front end, for each character of streams that is shown."""
_SHOW_FLOOD = (
    "\ncrkernel: some of what this cell displays, or sends by comms, is not shown: the front end "
    "is too slow for it; display less at a time, or raise %config output_size\n"
)
_NOBODY = Audience()
Json = dict[str, Any]
Ask = Callable[[str, bool], Awaitable[str | None]]
"""Asks a person: the prompt, and whether the answer is a secret."""


class IOPubSink:
    """Implements `session.Sink` for one execute_request. A silent one shows nothing."""

    def __init__(
        self,
        kernel: Kernel,
        parent: Json,
        silent: bool,
        ask: Ask | None = None,
        audience: Audience = _NOBODY,
        room: int = 16 << 20,
    ) -> None:
        """`room`: characters of streams that are shown."""
        self.audience = audience
        self._room = room
        self._most_waiting = _DISPLAYS * room
        self._cutting = False
        self._kernel = kernel
        self._parent = parent
        self._silent = silent
        self._ask = ask
        self._name = ""
        self._texts: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def stream(self, name: str, text: str) -> None:
        """Collected for a moment: a message a line would take a second for ten thousand."""
        if len(text) > self._room:
            self._cut(name, text)
            return
        self._room -= len(text)
        if name != self._name:
            self.flush()
            self._name = name
        self._texts.append(text)
        self._size += len(text)
        if self._size >= _FLUSH_CHARACTERS:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_FLUSH_SECONDS, self.flush)

    def _cut(self, name: str, text: str) -> None:
        """The last of a flood, which would drown the front end."""
        if self._room < 0:
            return
        shown, self._room = text[: self._room], len(_FLOOD)
        self._room += len(shown)
        self.stream(name, shown)
        self.stream("stderr", _FLOOD)
        self._room = -1

    def flush(self) -> None:
        """Send what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._texts:
            text, self._texts, self._size = "".join(self._texts), [], 0
            self._send("stream", {"name": self._name, "text": text})

    def takes(self, *, needed: bool) -> bool:
        """Goes by what waits for the front end. The first that is cut is told, and all after it are
        cut until half of that has left."""
        waiting, most = self._kernel.iopub_socket.waiting, self._most_waiting
        if needed:
            return bool(waiting < 2 * most)
        cuts = waiting >= (most // 2 if self._cutting else most)
        if cuts and not self._cutting:
            self.flush()
            self._send("stream", {"name": "stderr", "text": _SHOW_FLOOD})
        self._cutting = cuts
        return not cuts

    def display(
        self,
        data: Json,
        metadata: Json,
        transient: Json,
        update: bool,
        *,
        packed: bytes | None = None,
    ) -> None:
        """display_data or update_display_data."""
        self.flush()
        kind = "update_display_data" if update else "display_data"
        self._send(kind, packed or {"data": data, "metadata": metadata, "transient": transient})

    def clear_output(self, wait: bool) -> None:
        """clear_output."""
        self.flush()
        self._send("clear_output", {"wait": wait})

    def result(self, count: int, result: Json) -> None:
        """execute_result."""
        self.flush()
        self._send("execute_result", {"execution_count": count, **result})

    def error(self, content: Json) -> None:
        """error."""
        self.flush()
        self._send("error", content)

    async def ask(self, prompt: str, password: bool) -> str | None:
        """input_request and its answer."""
        self.flush()
        if self._ask is None:
            raise UserError(
                "this front end allows no input",
                hint="set the value in the cell, or run it where somebody can be asked",
            )
        return await self._ask(prompt, password)

    def comm(self, kind: str, content: Json, metadata: Json, buffers: Sequence[bytes]) -> None:
        """comm_open, comm_msg or comm_close; sent by silent cells as well: it is no output."""
        self.flush()
        if self._kernel.session is not None:
            self._kernel.session.send(
                self._kernel.iopub_socket,
                kind,
                content,
                parent=self._parent,
                ident=b"comm-" + str(content["comm_id"]).encode(),
                metadata=metadata,
                buffers=list(buffers),
            )

    def begin(self, count: int, key: str, code: str) -> None:
        """The heading over the output of a cell that is run again."""
        line = code.strip().split("\n")[0]
        self.flush()
        text = f"In [{count}] ← {key}: {line}"
        self._send("display_data", {"data": {"text/plain": text}, "metadata": {}, "transient": {}})

    def _send(self, kind: str, content: Json | bytes) -> None:
        kernel, session = self._kernel, self._kernel.session
        if self._silent or session is None:
            return
        topic = f"kernel.{kernel.ident}.{kind}".encode()
        session.send(kernel.iopub_socket, kind, cast(Json, content), self._parent, topic)
