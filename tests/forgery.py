"""Shipments taken apart and put together again, with right sums whatever was forged meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crkernel.guest import wire
from crkernel.guest.shipment import _LENGTH, _PIECE, MAGIC, Outgoing

Json = dict[str, Any]
_SUM = 32
_FILES = ("memory", "content", "manifest", "image")


@dataclass
class Part:
    """A message, and the file that follows it as pieces and a size."""

    said: Json
    pieces: list[tuple[int, bytes]] | None = None
    size: int = 0

    @property
    def text(self) -> Any:
        """The file, which is JSON."""
        assert self.pieces is not None
        return json.loads(b"".join(data for _, data in self.pieces))

    @text.setter
    def text(self, value: Any) -> None:
        self.data = json.dumps(value).encode()

    @property
    def data(self) -> bytes:
        """The file, which has no holes."""
        return b"".join(data for _, data in self.pieces or ())

    @data.setter
    def data(self, value: bytes) -> None:
        self.pieces = [(at, value[at : at + (1 << 20)]) for at in range(0, len(value), 1 << 20)]
        self.size = self.said["size"] = len(value)


@dataclass
class Shipment:
    """All parts of one."""

    parts: list[Part] = field(default_factory=list)

    @classmethod
    def read(cls, stream: bytes) -> Shipment:
        """What `fetch` gave."""
        assert stream.startswith(MAGIC)
        return cls(list(_parts(stream[len(MAGIC) :])))

    def of(self, kind: str) -> list[Part]:
        """The parts of a kind."""
        return [part for part in self.parts if part.said.get("part") == kind]

    def one(self, kind: str, **fields: object) -> Part:
        """The first part of a kind which has these fields."""
        return next(part for part in self.of(kind) if fields.items() <= part.said.items())

    def count(self) -> None:
        """Have the header say how much comes."""
        (header, *_) = self.parts
        header.said["bytes"] = sum(len(part.data) for part in self.parts)

    def stream(self) -> bytes:
        """As somebody would send it who knows how."""
        end = _End()
        out = Outgoing(end)  # type: ignore[arg-type]
        for part in self.parts:
            out._send(wire.pack(part.said))
            for offset, data in part.pieces or ():
                out._send(_PIECE.pack(offset, len(data)) + data)
            if part.pieces is not None:
                out._send(_PIECE.pack(part.size, 0))
            if part.pieces is not None or part.said.get("part") in ("header", "end"):
                out.sum()
        return b"".join(end.sent)


class _End:
    """Where an outgoing shipment goes."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall_or_end(self, data: bytes | memoryview) -> None:
        """Keep it."""
        self.sent.append(bytes(data))


def _parts(stream: bytes) -> Iterator[Part]:
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        return stream[position - size : position]

    while position < len(stream):
        part = Part(wire.parse(take(_LENGTH.unpack(take(_LENGTH.size))[0])))
        if part.said["part"] in _FILES:
            part.pieces = []
            while piece := _PIECE.unpack(take(_PIECE.size)):
                if piece[1] == 0:
                    break
                part.pieces.append((piece[0], take(piece[1])))
            part.size = piece[0]
        if part.pieces is not None or part.said["part"] in ("header", "end"):
            take(_SUM)
        yield part
