"""Frames and messages between the kernel, a supervisor and a guest.

One frame is four bytes of big-endian length and a UTF-8 JSON object of that length. Requests carry
an `id` and an `op`, replies the same `id`, events an `event`. `docs/protocol.md` lists them.

Everything that comes out of a sandbox is hostile until it is checked: `Decoder` bounds the size of
a frame, `check_shape` what it would become in memory; whoever consumes a message checks the fields
it uses.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, count
from operator import sub
from typing import Any

PROTOCOL = 1
"""Raised with each incompatible change of what crosses the wire."""

MAX_FRAME = 128 << 20
"""Bytes; a longer frame is a broken or hostile peer, not a message."""

MOST_VALUES = 2_000_000
"""In a guest's frame, within each other as well: one of brackets alone takes twenty times its
size in memory."""

MOST_DEEP = 250
"""Arrays and objects within each other; whoever encodes a message again recurs for each."""

LONG = 1 << 16
"""Bytes of a body for which a copy is worth avoiding."""

FENCE = b'{"event":"fence"}'
"""Written by a guest when a child process that shares its stdout has just ended: what the child
printed comes before whatever follows the fence."""

EVENT, REPLY = b"e", b"r"
"""First byte of a frame to the kernel that a supervisor passes on unread from its guest. A frame
that begins with `{` is the supervisor's own: a guest cannot forge those."""

# JSON.stringify escapes lone ones only and UTF-8 has none at all, so no text that it writes loses a
# pair. A hostile guest writes its own JSON, in capitals if it likes.
_SURROGATE = re.compile(r"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
# What is left of JSON to see its shape: each mark as by how much it changes the depth, plus one.
_OPENS, _STAYS, _CLOSES = b"\2", b"\1", b"\0"
_MARKS = bytes.maketrans(b"[{,]}", 2 * _OPENS + _STAYS + 2 * _CLOSES)
_OTHERS = bytes(set(range(256)) - set(b'[{,]}"'))
_HEADER = struct.Struct("!I")

Message = dict[str, Any]
Body = bytes | bytearray


class WireError(ValueError):
    """The peer sent something that is no frame."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_READ = json.JSONDecoder(parse_constant=_refuse).raw_decode
"""Takes no NaN: what is passed on as it came must be JSON for everyone. And no blanks around it,
since looking for them takes as long as reading a line's event."""

_WRITE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def header(size: int) -> bytes:
    """What stands before a body of this many bytes."""
    if size > MAX_FRAME:
        raise WireError(f"a message of {size} bytes is longer than {MAX_FRAME} allow")
    return _HEADER.pack(size)


def frame(body: Body, prefix: bytes = b"") -> bytes:
    """A frame around what is JSON already."""
    return b"".join((header(len(prefix) + len(body)), prefix, body))


def encode(message: Mapping[str, Any]) -> bytes:
    """The body of a message. Lone surrogates, which UTF-8 has no bytes for, become "?"."""
    return _WRITE(message).encode(errors="replace")


def pack(message: Mapping[str, Any]) -> bytes:
    """One frame, ready to be written."""
    return frame(encode(message))


def join(bodies: Iterable[Body], prefix: bytes) -> Iterator[Body]:
    """The bytes of frames: of short ones together, and the body of a long one without a copy."""
    together = bytearray()
    for body in bodies:
        together += header(len(prefix) + len(body)) + prefix
        if len(body) < LONG:
            together += body
        else:
            yield together
            yield body
            together = bytearray()
    if together:
        yield together


def parse(body: Body) -> Message:
    """The message in a frame's body. Raises WireError."""
    try:
        text = body.decode()
        if "\\" in text and ("\\ud" in text or "\\uD" in text):  # the first look is the faster one
            text = _SURROGATE.sub(r"\1\\ufffd", text)
        message, end = _READ(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict) or end != len(text):
        raise WireError("a frame is not a JSON object")
    return message


def check_shape(body: Body) -> None:
    """Before it is parsed: whether what JSON a guest wrote has no more values, and none deeper
    within each other, than MOST_VALUES and MOST_DEEP. Raises WireError."""
    opened = body.count(b"[") + body.count(b"{")
    if opened <= MOST_DEEP and opened + body.count(b",") <= MOST_VALUES:
        return  # as nearly all, also with what stands in their texts
    marks = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(_MARKS, _OTHERS)
    many = marks.count(b'"') > 4 * MOST_VALUES  # a text, and its name
    if not many:
        marks = b"".join(marks.split(b'"')[::2])  # what stands between strings
        many = marks.count(_STAYS) + marks.count(_OPENS) > MOST_VALUES
    if many:
        raise WireError(f"a frame holds more than {MOST_VALUES} values")
    if max(map(sub, accumulate(marks), count(1)), default=0) > MOST_DEEP:
        raise WireError(f"a frame is deeper than {MOST_DEEP} values within each other")


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

    def feed(self, data: bytes) -> list[Body]:
        """The body of each frame that `data` completes. After a WireError it is of no more use."""
        self._buffer += data
        bodies: list[Body] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                raise WireError(f"a frame claims {length} bytes")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            if length >= LONG and end == len(self._buffer):  # handed over, not copied
                body, self._buffer = self._buffer, bytearray()
                del body[: start + _HEADER.size]
                bodies.append(body)
                return bodies
            with memoryview(self._buffer) as view:
                bodies.append(bytes(view[start + _HEADER.size : end]))
            start = end
        del self._buffer[:start]
        return bodies
