"""What comes out of a cell: how it ended and where its output goes; and what is known of the
guest's language to tell one from the other.

Nothing that a guest says is believed: what leaves this module has the types it promises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from crkernel.engines.limits import Limits
from crkernel.guest.wire import LONG, may_hold_surrogates

Json = dict[str, Any]

_NO_NETWORK = re.compile(r"\b(EAI_AGAIN|ENETUNREACH)\b")
Place = Literal["notebook", "console", "unattended"]
_CODES = {"EFBIG": "file_size", "ENOSPC": "disk_size"}
_WORDS = {"database or disk is full": "disk_size"}
"""What an error says that has no such code."""
_CHILDS_WORDS = {
    "disk_size": r"No space left on device",
    "file_size": r"^[^\s:]+: .*: File too large$|\[Errno 27\] File too large"
    r"|File size limit exceeded",
    "memory": r"^MemoryError\b|[:\]] Cannot allocate memory$",
    "max_processes": r"(fork|[Tt]hread).*(\n([ ~^]*\n)?.*)?Resource temporarily unavailable$"
    r"|: Cannot fork$|can't start new thread$",
}
"""What a child process leaves on its stderr that has hit one. Others say the like of other things:
a server of a file, a read of a pipe that is empty."""
_TOLD = 1024
"""Characters at its end that are looked at."""
_MIME = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(;.*)?")
_JSON_MIME = re.compile(r"application/(.*\+)?json")


@dataclass(frozen=True, slots=True)
class Language:
    """How to start a guest and how to read its last words; nothing else knows what it speaks."""

    command: Callable[[Limits], list[str]]
    environment: Mapping[str, str]
    out_of_memory: re.Pattern[str]
    """What its errors say, or its stderr when it dies, if it hit its memory limit."""
    reserved: int
    """Bytes of address space that it reserves without using them, on top of the memory limit."""
    noise: str
    """What its runtime prints to stderr when it ends, of no use to anyone here."""
    install_scripts: str
    """Code that runs the scripts of packages: other people's programs, so it is a cell's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended. `result` is {"data", "metadata"}; `error` is {"name", "message", "code",
    "traceback", "interrupted"}; `measured` is what the guest says, unchecked, if it measured it."""

    status: str
    result: Json | None = None
    error: Json | None = None
    user_expressions: Json = field(default_factory=dict)
    measured: Json | None = None

    @property
    def text(self) -> str | None:
        """The result as text; None if there is none."""
        text = self.result["data"].get("text/plain") if self.result else None
        return "".join(text) if isinstance(text, list) else text


@dataclass(frozen=True, slots=True)
class Audience:
    """Who sees what a cell shows, and what of it has colours."""

    at: Place = "unattended"
    colors: Literal["none", "errors", "all"] = "errors"


class Sink(Protocol):
    """Where what a cell prints and shows goes to."""

    audience: Audience

    def stream(self, name: str, text: str) -> None:
        """Text for "stdout" or "stderr"."""

    def takes(self, *, needed: bool) -> bool:
        """Whether a display, or a message of a comm, may come: too many of them would fill our
        memory where the front end is slow. There is twice the room for what is `needed`."""

    def display(
        self,
        data: Json,
        metadata: Json,
        transient: Json,
        update: bool,
        *,
        packed: bytes | None = None,
    ) -> None:
        """A MIME bundle, new or in place of an earlier one; `packed` is all of it as JSON, if that
        is known."""

    def clear_output(self, wait: bool) -> None:
        """Remove what was shown."""

    async def ask(self, prompt: str, password: bool) -> str | None:
        """What the person at the front end types; None at the end of input. Raises UserError
        where nobody can be asked."""

    def comm(self, kind: str, content: Json, metadata: Json, buffers: Sequence[bytes]) -> None:
        """A message of a comm: comm_open, comm_msg or comm_close."""

    def begin(self, count: int, key: str, code: str) -> None:
        """A cell is run again, as execution `count`."""

    def result(self, count: int, result: Json) -> None:
        """The result of a cell that was run again."""


def outcome(reply: Json, limits: Limits, language: Language) -> Outcome:
    """From the guest's reply to `execute`."""
    expressions = reply.get("user_expressions")
    expressions = expressions if isinstance(expressions, dict) else {}
    measured = reply.get("measured")
    measured = measured if isinstance(measured, dict) else None
    if reply.get("status") == "error":
        error = reply.get("error")
        checked = error_of(error if isinstance(error, dict) else {}, limits, language)
        return Outcome("error", error=checked, measured=measured)
    result = reply.get("result")
    shown = bundle(result) if isinstance(result, dict) else None
    return Outcome("ok", shown, None, expressions, measured)


def bundle(message: Json) -> Json | None:
    """Its MIME bundle as {"data", "metadata"}; None if it has none. What the notebook format does
    not allow is left out: a front end could not save its notebook any more."""
    data, metadata = message.get("data"), message.get("metadata")
    if not isinstance(data, dict):
        return None
    allowed = {
        mime: value
        for mime, value in data.items()
        if _MIME.fullmatch(mime) and (isinstance(value, str) or _JSON_MIME.fullmatch(mime))
    }
    return {"data": allowed, "metadata": metadata if isinstance(metadata, dict) else {}}


def packed(event: Json, shown: Json) -> bytes | None:
    """The content of a long display as the guest wrote it, which saves encoding it anew; None if
    that is not, byte for byte, JSON that holds what was checked to be `shown`."""
    body, data = event["body"], shown["data"]
    if len(body) < LONG or data != event["data"] or not all(type(v) is str for v in data.values()):
        return None
    if shown["metadata"] or event.get("metadata") != {} or not _is_plain(event.get("transient")):
        return None
    if may_hold_surrogates(body):
        return None
    head, tail = b'{"event":"display",', b',"update":%s}' % json.dumps(event["update"]).encode()
    if not body.startswith(head) or not body.endswith(tail):
        return None
    with memoryview(body) as view:
        return b"".join((b"{", view[len(head) : -len(tail)], b"}"))


def _is_plain(transient: Any) -> bool:
    """Whether it holds strings only."""
    return isinstance(transient, dict) and all(type(v) is str for v in transient.values())


def error_of(error: Json, limits: Limits, language: Language) -> Json:
    """An error as the guest describes it; one that comes from a limit of ours names it."""
    traceback, code = error.get("traceback"), error.get("code")
    checked: Json = {
        "name": str(error.get("name", "Error")),
        "message": str(error.get("message", "")),
        "code": code if isinstance(code, str) else None,
        "traceback": [str(line) for line in traceback] if isinstance(traceback, list) else [],
        "interrupted": error.get("interrupted") is True,
    }
    sure = _limit_of(checked, language)
    name = sure or _childs_limit(checked["message"])
    if name is not None:
        hint = limit_hint(name, limits)
        if sure is None:
            hint = f"perhaps {hint}"
        elif "Worker terminated" in checked["message"]:
            hint = f"if it has no resourceLimits of its own: {hint}"
        checked["message"] = f"{checked['message'].rstrip()} ({hint})"
        checked["traceback"].append(f"hint: {hint}")
    return checked


def add_network_hint(error: Json) -> None:
    """To the error of a guest without a network, if that is what it is about."""
    if _NO_NETWORK.search("\n".join([error["message"], *error["traceback"]])):
        error["traceback"].append(
            "hint: this guest has no network; %npm brings packages, and with "
            "%config network = full and %reset it has one"
        )


def simple_error(name: str, message: str) -> Json:
    """An error of ours, in the same shape."""
    return {
        "name": name,
        "message": message,
        "code": None,
        "traceback": [f"{name}: {message}"],
        "interrupted": False,
    }


def limit_hint(name: str, limits: Limits) -> str:
    """Which limit was hit and how to raise it."""
    value = getattr(limits, name)
    shown = value if name == "max_processes" else f"{value >> 20} MiB"
    return f"limit {name} = {shown}; set a higher one with %config {name}=… and %reset"


def _limit_of(error: Json, language: Language) -> str | None:
    message, code = error["message"], error["code"]
    if language.out_of_memory.search(message):
        return "memory"
    if "EAGAIN" in message and ("spawn" in message or code == "ERR_WORKER_INIT_FAILED"):
        return "max_processes"
    if "watch" in message:  # ENOSPC also means the machine's limit of inotify watches
        return None
    if code in _CODES:
        return _CODES[code]
    return next((name for said, name in _WORDS.items() if said in message), None)


def _childs_limit(message: str) -> str | None:
    """Which one a child process may have hit whose failure is told so, its stderr below."""
    if not message.startswith("Command failed"):
        return None
    said = message.partition("\n")[2][-_TOLD:]
    return next((n for n, words in _CHILDS_WORDS.items() if re.search(words, said, re.M)), None)
