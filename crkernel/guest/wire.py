"""Frames and messages between the kernel, a supervisor and a guest.

One frame is four bytes of big-endian length and a UTF-8 JSON object of that length. Requests carry
an `id` and an `op`, replies the same `id`, events an `event`. `docs/protocol.md` lists them.

Everything that comes out of a sandbox is hostile until it is checked: `Decoder` bounds the size of
a frame, `parse_guests` what it becomes in memory; whoever consumes a message checks the fields
it uses.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
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
_MARKS = (b"[", b"{", b",")
"""How many there are tells how many values there are at most."""
_FEW = MOST_VALUES // 200
_OTHERS = bytes(set(range(256)) - set(b'[{,"'))
"""All bytes but those that tell how many values there are."""
_CONTAINERS = frozenset((dict, list))
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
        if may_hold_surrogates(body):
            text = _SURROGATE.sub(r"\1\\ufffd", text)
        message, end = _READ(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict) or end != len(text):
        raise WireError("a frame is not a JSON object")
    return message


def may_hold_surrogates(body: Body) -> bool:
    """Whether there is an escape of one, in any spelling. The first look is the faster one."""
    return b"\\" in body and (b"\\ud" in body or b"\\uD" in body)


def parse_guests(body: Body) -> Message:
    """The message in a frame's body that a guest wrote, with no more values, and none deeper within
    each other, than MOST_VALUES and MOST_DEEP. Raises WireError."""
    if len(body) > 2 * MOST_VALUES:  # each has a byte at least, and a comma
        _check_number(body)
    message = parse(body)
    if len(body) > 2 * MOST_DEEP:
        _check_depth(message)
    return message


def _check_number(body: Body) -> None:
    """Before they are made: those of brackets alone take twenty times their size in memory."""
    if all(_is_rare(mark, body) for mark in _MARKS):
        return
    if sum(map(body.count, _MARKS)) <= MOST_VALUES:
        return  # as nearly all, also with what stands in their texts
    marks = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _OTHERS)
    many = marks.count(b'"') > 4 * MOST_VALUES  # a text, and its name
    if many or sum(len(part) for part in marks.split(b'"')[::2]) > MOST_VALUES:
        raise WireError(f"a frame holds more than {MOST_VALUES} values")


def _is_rare(mark: bytes, body: Body) -> bool:
    """Whether it is there so seldom that to look for it is faster than to count it."""
    at = -1
    for _ in range(_FEW):
        at = body.find(mark, at + 1)
        if at < 0:
            return True
    return False


def _check_depth(message: Message) -> None:
    """Of what is parsed: that recurs as well, but has a limit of its own."""
    level: list[Any] = [message]
    for _ in range(MOST_DEEP):
        held = chain.from_iterable(v.values() if type(v) is dict else v for v in level)
        level = [value for value in held if type(value) in _CONTAINERS]
        if not level:
            return
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
