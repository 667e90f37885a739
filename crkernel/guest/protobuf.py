"""The few bytes of protocol buffers that CRIU's RPC and images need.

The image ships Google's library too, but importing it takes 120 ms, longer than everything else
between a kernel's start and its first cell; the wire format itself is two rules: varints and
length-prefixed bytes. (https://protobuf.dev/programming-guides/encoding/)
"""

from __future__ import annotations

from collections.abc import Iterable

Value = int | bool | str | bytes
Field = tuple[int, Value]

_LAST, _MORE = 0x7F, 0x80
"""Up to the former a byte is the last one of a varint; the latter says that more come."""
_SHORT = [bytes([value]) for value in range(_MORE)]
_MOST_SHIFT = 63
_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
"""Bytes of the wire types that have always as many."""


def encode(fields: Iterable[Field]) -> bytes:
    """A message of varint (int, bool) and length-delimited (str, bytes) fields."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3)
            out += varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2)
            out += varint(len(raw))
            out += raw
    return bytes(out)


def decode(data: bytes) -> list[tuple[int, int | bytes]]:
    """(field number, value) of each field; nested messages and strings come as bytes.

    Raises ValueError for what is no message of these kinds.
    """
    fields: list[tuple[int, int | bytes]] = []
    position, end = 0, len(data)
    try:
        while position < end:
            tag, position = data[position], position + 1
            if tag > _LAST:
                tag, position = _read_on(data, tag, position)
            if tag & 7 == 0:
                value, position = data[position], position + 1
                if value > _LAST:
                    value, position = _read_on(data, value, position)
                fields.append((tag >> 3, value))
            else:
                size, position = _size(tag & 7, data, position)
                fields.append((tag >> 3, data[position : position + size]))
                position += size
    except IndexError:
        raise ValueError("a protocol buffer is cut short") from None
    if position > end:
        raise ValueError("a protocol buffer is cut short")
    return fields


def varint(value: int) -> bytes:
    """As one goes into a message."""
    if 0 <= value <= _LAST:
        return _SHORT[value]
    value &= (1 << 64) - 1  # negative int32 and int64 go as ten bytes
    out = bytearray()
    while value > _LAST:
        out.append(value & _LAST | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def _size(kind: int, data: bytes, position: int) -> tuple[int, int]:
    """How many bytes a field of this wire type has, and where they begin."""
    if kind != _DELIMITED:
        if kind not in _FIXED:
            raise ValueError(f"a protocol buffer has wire type {kind}")
        return _FIXED[kind], position
    size, position = data[position], position + 1
    return (size, position) if size <= _LAST else _read_on(data, size, position)


def _read_on(data: bytes, first: int, position: int) -> tuple[int, int]:
    """The varint that begins with the byte `first`, which is not its last, and where it ends."""
    value, shift = first & _LAST, 7
    while shift <= _MOST_SHIFT:
        byte, position = data[position], position + 1
        if byte <= _LAST:
            return value | byte << shift, position
        value |= (byte & _LAST) << shift
        shift += 7
    raise ValueError("a protocol buffer is cut short")
