"""Listens to the guest: what it prints and shows goes where the newest cell's output goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from crkernel.comms import Comms
from crkernel.engines.base import Engine
from crkernel.guest.wire import WireError
from crkernel.outcome import Audience, Json, Language, Sink, bundle, error_of, packed
from crkernel.questions import Questions

log = logging.getLogger(__name__)

_NOTE_SECONDS = 1.0
_TAIL = 4096
_BULKY = ("display", "comm")
_PREFIX = "crkernel: "


class Listener:
    """The ear of one session. It also says what the session itself has to tell."""

    def __init__(
        self, engine: Engine, language: Language, questions: Questions, comms: Comms
    ) -> None:
        self.last_words = ""
        """The end of what the guest wrote to stderr since the cell began."""
        self._engine = engine
        self._language = language
        self._questions = questions
        self._comms = comms
        self._cell: Sink | None = None
        self._handlers: dict[int, Sink] = {}  # of messages that the guest is to handle
        self._handled = 0
        self._handler: Sink | None = None
        self._notes: list[str] = []

    def begin(self, sink: Sink) -> None:
        """A cell begins, whose output goes to `sink`, and with it what was to be told before."""
        self._cell, self.last_words = sink, ""
        self._tell()

    @contextlib.contextmanager
    def handling(self, sink: Sink) -> Iterator[int]:
        """What the guest says while it handles the message of that number goes to `sink`."""
        self._handled += 1
        number = self._handled
        self._handlers[number] = sink
        try:
            yield number
        finally:
            del self._handlers[number]
            if self._handler is sink:
                self._handler = None

    @property
    def audience(self) -> Audience:
        """Who sees what the cell shows."""
        return Audience() if self._cell is None else self._cell.audience

    @property
    def sink(self) -> Sink | None:
        """Where what the guest says goes to now."""
        return self._handler or self._cell

    def hear(self, event: Json) -> None:
        """An event of the guest. Raises WireError for one that means nothing."""
        kind, sink = event.get("event"), self.sink
        if kind in ("output", "stream") and event.get("name") in ("stdout", "stderr"):
            self._on_text(event["name"], str(event.get("text", "")))
        elif kind == "handler":
            self._switch(event)
        elif sink is None or (kind in _BULKY and not sink.takes(needed=_is_needed(event))):
            return
        elif kind == "display" and (shown := bundle(event)) is not None:
            transient = event.get("transient")
            transient = transient if isinstance(transient, dict) else {}
            update = event.get("update") is True
            content = packed(event, shown)
            sink.display(shown["data"], shown["metadata"], transient, update, packed=content)
        elif kind == "clear_output":
            sink.clear_output(event.get("wait") is True)
        elif kind == "input":
            self._questions.pass_on(event, sink)
        elif kind == "comm":
            self._comms.say(event, sink)
        elif kind == "error":
            lines = error_of(event, self._engine.limits, self._language)["traceback"]
            origin = str(event.get("origin", "callback"))
            sink.stream("stderr", f"Uncaught ({origin}):\n" + "\n".join(lines) + "\n")
        else:
            raise WireError("it is none of ours")

    def warn(self, text: str) -> None:
        """Shown as stderr of the next cell, or soon if none comes: by now the cell's own output
        may be closed for good."""
        self._notes.append(f"{_PREFIX}{text}\n")
        asyncio.get_running_loop().call_later(_NOTE_SECONDS, self._tell)

    def end(self) -> None:
        """What no cell will show any more goes to the log: nbconvert passes that on."""
        notes, self._notes = self._notes, []
        for note in notes:
            log.warning("%s", note.removeprefix(_PREFIX).strip())

    def _on_text(self, name: str, text: str) -> None:
        if name == "stderr":
            text = text.replace(self._language.noise, "")
            self.last_words = (self.last_words + text)[-_TAIL:]
        if text and self.sink is not None:
            self.sink.stream(name, text)

    def _switch(self, event: Json) -> None:
        """A handler begins or has ended."""
        number = event.get("delivery")
        sink = self._handlers.get(number) if isinstance(number, int) else None
        if event.get("begins") is True:
            self._handler = sink
        elif sink is self._handler:
            self._handler = None

    def _tell(self) -> None:
        if self._cell is None:
            return
        notes, self._notes = self._notes, []
        for note in notes:
            self._cell.stream("stderr", note)


def _is_needed(event: Json) -> bool:
    """Whether both sides would differ, on which comms are open, without an event."""
    return event["event"] == "comm" and event.get("kind") in ("open", "close")
