"""Comms: which are open, and their messages between the front end and the guest.

A rewind changes one side only, the guest's. So it is noted for each checkpoint which comms were
open then: what has been opened since is closed in the front end after a rewind, and what has been
closed since is closed in the guest.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from crkernel.guest.wire import WireError
from crkernel.outcome import Json, Sink

_KINDS = ("open", "msg", "close")
_MOST = 10_000
"""Comms that may be open at a time."""
_LONGEST = 256
"""Characters of an id or a target: each checkpoint knows those that were open."""


class Comms:
    """The comms of one session."""

    def __init__(self) -> None:
        self.targets: Mapping[str, str] = {}
        """Of those that are open, by id. Never changed but replaced, as checkpoints share it."""
        self.kept: dict[str, Mapping[str, str]] = {}
        """Those that were open at a checkpoint, if there were any."""

    def say(self, event: Json, sink: Sink) -> None:
        """Tell the front end what the guest says. Raises WireError if that is no message."""
        kind, number, target = (event.get(name) for name in ("kind", "comm", "target"))
        data, metadata = event.get("data"), event.get("metadata")
        buffers = _decoded(event.get("buffers"))
        right = kind in _KINDS and _is_name(number) and isinstance(metadata, dict)
        if not right or buffers is None or (kind == "open" and not _is_name(target)):
            raise WireError("it is no message of a comm")
        content = {"comm_id": number, "data": data}
        if kind == "open":
            if len(self.targets) >= _MOST:
                raise WireError(f"more than {_MOST} comms are open")
            self._opened(str(number), str(target))
            content["target_name"] = target
        elif kind == "close":
            self._closed(str(number))
        sink.comm(f"comm_{kind}", content, metadata, buffers)  # type: ignore[arg-type]

    def call(self, message: Json) -> Json:
        """The fields of the guest's call for a message of the front end."""
        content, kind = message["content"], message["msg_type"].removeprefix("comm_")
        number, target = str(content["comm_id"]), str(content.get("target_name", ""))
        if kind == "open":
            self._opened(number, target)
        return {
            "kind": kind,
            "comm": number,
            "target": target,
            "data": content.get("data", {}),
            "metadata": message.get("metadata", {}),
            "buffers": [base64.b64encode(part).decode() for part in message.get("buffers", ())],
        }

    def taken(self, message: Json, known: bool, sink: Sink) -> None:
        """The guest has the message, or there is no such comm or target; then it is closed."""
        number, kind = str(message["content"]["comm_id"]), message["msg_type"]
        if not known and kind != "comm_close":
            _close(number, sink)
        if not known or kind == "comm_close":
            self._closed(number)

    def keep(self, key: str) -> None:
        """A checkpoint was taken."""
        if self.targets:
            self.kept[key] = self.targets

    def rewound(self, key: str, sink: Sink | None) -> list[Json]:
        """The guest is that of a checkpoint again. Closes in the front end what it does not know;
        the calls that close, in the guest, what the front end no longer knows."""
        then, now = self.kept.get(key, {}), self.targets
        if sink is not None:
            for number in now.keys() - then.keys():
                _close(number, sink)
        self.targets = {number: now[number] for number in now.keys() & then.keys()}
        gone: dict[str, Any] = {"kind": "close", "data": {}, "metadata": {}, "buffers": []}
        return [gone | {"comm": number} for number in sorted(then.keys() - now.keys())]

    def _opened(self, number: str, target: str) -> None:
        self.targets = {**self.targets, number: target}

    def _closed(self, number: str) -> None:
        if number in self.targets:
            self.targets = {n: target for n, target in self.targets.items() if n != number}


def _close(number: str, sink: Sink) -> None:
    sink.comm("comm_close", {"comm_id": number, "data": {}}, {}, ())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _decoded(parts: Any) -> Sequence[bytes] | None:
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return None
    try:
        return [base64.b64decode(part, validate=True) for part in parts]
    except (binascii.Error, ValueError):
        return None
