"""The few bytes of protocol buffers that CRIU's RPC and images need.

The image ships Google's library too, but importing it takes 120 ms, longer than everything else
between a kernel's start and its first cell; the wire format itself is two rules: varints and
length-prefixed bytes. (https://protobuf.dev/programming-guides/encoding/)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Value = int | bool | str | bytes
Field = tuple[int, Value]


def encode(fields: Iterable[Field]) -> bytes:
    """A message of varint (int, bool) and length-delimited (str, bytes) fields."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(raw)) + raw
    return bytes(out)


def decode(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value); nested messages and strings come as bytes.

    Raises ValueError for what is no message of these kinds.
    """
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == 0:
            value, position = _read_varint(data, position)
        elif kind in (1, 2, 5):
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, position = _read_varint(data, position)
            value = data[position : position + size]
            if len(value) != size:
                raise ValueError("a protocol buffer is cut short")
            position += size
        else:
            raise ValueError(f"a protocol buffer has wire type {kind}")
        yield number, value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative int32 and int64 go as ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a protocol buffer is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
