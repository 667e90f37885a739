"""Jupyter's stdin channel: one question at a time, and cells can be interrupted meanwhile."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from ipykernel.kernelbase import Kernel
from zmq.eventloop.zmqstream import ZMQStream

log = logging.getLogger(__name__)

_END_OF_INPUT = "\x04"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """The question that is open: whom it went to, and what takes the answer."""

    identity: Any
    id: str
    answer: asyncio.Future[str | None]


class Stdin:
    """Asks the front ends of one kernel. The base class would block the event loop meanwhile."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._turn = asyncio.Lock()
        self._stream: ZMQStream | None = None
        self._asked: Asked | None = None

    async def ask(self, identity: Any, parent: Json, prompt: str, password: bool) -> Any:
        """input_request to whoever sent `parent`, and what was typed; None at the end of input."""
        session = self._kernel.session
        assert session is not None
        async with self._turn:
            if self._stream is None:
                self._stream = ZMQStream(self._kernel.stdin_socket)
                self._stream.on_recv(self._on_reply)
            content = {"prompt": prompt, "password": password}
            request: Json = session.send(  # type: ignore[assignment]
                self._stream, "input_request", content, parent, ident=identity
            )
            future = asyncio.get_running_loop().create_future()
            self._asked = Asked(identity, request["header"]["msg_id"], future)
            try:
                return await future
            finally:
                self._asked = None

    def _on_reply(self, frames: list[bytes]) -> None:
        """A late answer to a question that is no more goes nowhere."""
        asked, session = self._asked, self._kernel.session
        if asked is None or session is None:
            return
        try:
            identity, rest = session.feed_identities(frames)
            reply = session.deserialize(rest)
        except (ValueError, TypeError) as error:
            log.warning("a message on stdin is none: %s", error)
            return
        value = reply["content"].get("value")
        if list(identity) != list(asked.identity) or reply["msg_type"] != "input_reply":
            return
        # Not all front ends say which question they answer.
        answered = reply["parent_header"].get("msg_id", asked.id)
        if answered == asked.id and isinstance(value, str) and not asked.answer.done():
            asked.answer.set_result(None if value == _END_OF_INPUT else value)
