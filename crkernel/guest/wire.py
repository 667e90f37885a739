"""Frames and messages between the kernel, a supervisor and a guest.

One frame is four bytes of big-endian length and a UTF-8 JSON object of that length. Requests carry
an `id` and an `op`, replies the same `id`, events an `event`. `docs/protocol.md` lists them.

Everything that comes out of a sandbox is hostile until it is checked: `Decoder` bounds the size
and the shape of a frame, whoever consumes a message checks the fields it uses.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Any

PROTOCOL = 1
"""Raised with each incompatible change of what crosses the wire."""

MAX_FRAME = 128 << 20
"""Bytes; a longer frame is a broken or hostile peer, not a message."""

FENCE = b'{"event":"fence"}'
"""Written by a guest when a child process that shares its stdout has just ended: what the child
printed comes before whatever follows the fence."""

EVENT, REPLY = b"e", b"r"
"""First byte of a frame to the kernel that a supervisor passes on unread from its guest. A frame
that begins with `{` is the supervisor's own: a guest cannot forge those."""

# JSON.stringify escapes just these, and no other encoder of this project's peers can take them.
_LONE_SURROGATE = re.compile(rb"(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}")
_HEADER = struct.Struct("!I")

Message = dict[str, Any]


class WireError(ValueError):
    """The peer sent something that is no frame."""


def frame(body: bytes, prefix: bytes = b"") -> bytes:
    """A frame around what is JSON already."""
    size = len(prefix) + len(body)
    if size > MAX_FRAME:
        raise WireError(f"a message of {size} bytes is longer than {MAX_FRAME} allow")
    return _HEADER.pack(size) + prefix + body


def pack(message: Mapping[str, Any]) -> bytes:
    """One frame, ready to be written. Lone surrogates, which UTF-8 has no bytes for, become "?"."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return frame(text.encode(errors="replace"))


def parse(body: bytes) -> Message:
    """The message in a frame's body. Raises WireError."""
    if b"\\ud" in body:
        body = _LONE_SURROGATE.sub(rb"\1\\ufffd", body)
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError("a frame is not a JSON object")
    return message


class Decoder:
    """Cuts a byte stream into frames' bodies; `leftover` is the start of an unfinished frame.

    A checkpoint keeps the leftover of each of the guest's pipes: a guest that was frozen in the
    middle of a write finishes that frame on the new pipe after a restore.
    """

    def __init__(self, leftover: bytes = b"") -> None:
        self._buffer = bytearray(leftover)

    @property
    def leftover(self) -> bytes:
        """Bytes fed so far that belong to a frame whose end has not come."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The body of each frame that `data` completes. After a WireError it is of no more use."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                raise WireError(f"a frame claims {length} bytes")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + _HEADER.size : end]))
            start = end
        del self._buffer[:start]
        return bodies
