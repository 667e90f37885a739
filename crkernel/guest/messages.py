"""The messages in CRIU's images, as dictionaries. (CRIU's images/*.proto)

`pycriu` would read them too, but it imports Google's library, see protobuf.py, which takes four
times as long as a rebase for which the next cell may wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from . import protobuf

Json = dict[str, Any]


class Kind:
    """Of a message the fields that matter here, by name: numbers, strings, and other messages
    (`parts`, of which those `in_lists` come as a list). The values of all others stay as they are,
    in a list under the field's number."""

    def __init__(
        self,
        fields: Mapping[str, int],
        parts: Mapping[str, Kind] | None = None,
        in_lists: str = "",
    ) -> None:
        self._numbers = fields
        self._names = {number: name for name, number in fields.items()}
        self._tags = {name: protobuf.varint(number << 3) for name, number in fields.items()}
        self._parts = parts or {}
        self._in_lists = in_lists

    def parse(self, data: bytes) -> Json:
        """Raises ValueError for what is no such message."""
        message: Json = {}
        names = self._names
        for number, value in protobuf.decode(data):
            if (name := names.get(number)) is None:
                message.setdefault(str(number), []).append(value)
            elif isinstance(value, int):
                message[name] = value
            elif (part := self._parts.get(name)) is None:
                message[name] = os.fsdecode(value)
            elif name == self._in_lists:
                message.setdefault(name, []).append(part.parse(value))
            else:
                message[name] = part.parse(value)
        return message

    def encode(self, message: Json) -> bytes:
        """What `parse` takes apart."""
        out = bytearray()
        tags, varint = self._tags, protobuf.varint
        for name, value in message.items():
            if isinstance(value, int) and name in tags:
                out += tags[name] + varint(value)
            else:
                out += protobuf.encode(self._fields(name, value))
        return bytes(out)

    def _fields(self, name: str, value: Any) -> Iterator[protobuf.Field]:
        number = self._numbers.get(name) or int(name)
        for one in value if isinstance(value, list) else (value,):
            if name in self._parts:
                yield number, self._parts[name].encode(one)
            else:
                yield number, os.fsencode(one) if isinstance(one, str) else one


_MAPPING = Kind(
    {"start": 1, "end": 2, "pgoff": 3, "shmid": 4, "prot": 5, "flags": 6, "status": 7, "madv": 9}
    | {"fdflags": 10}
)
_OWNER = Kind({"uid": 1, "euid": 2, "signum": 3, "pid_type": 4, "pid": 5})
_REGULAR_FILE = Kind(
    {"id": 1, "flags": 2, "pos": 3, "fown": 5, "name": 6, "size": 8, "mode": 10}, {"fown": _OWNER}
)
_CREDENTIALS = Kind({"groups": 14})
_THREAD = Kind({"credentials": 10}, {"credentials": _CREDENTIALS})
_RUN = Kind({"vaddr": 1, "compat_nr_pages": 2, "in_parent": 3, "flags": 4, "nr_pages": 5})
_KINDS = {
    "core": Kind({"thread": 5}, {"thread": _THREAD}),
    "files": Kind({"type": 1, "id": 2, "reg": 3}, {"reg": _REGULAR_FILE}),
    "mm": Kind({"exe_file_id": 12, "vmas": 14}, {"vmas": _MAPPING}, in_lists="vmas"),
    "pagemap": _RUN,
    "pstree": Kind({"pid": 1}),
}
_HEADS = {"pagemap": Kind({"pages_id": 1})}
"""The first entry of an image, where it is another message."""


def kinds(name: str) -> Iterator[Kind]:
    """What the entries of an image are, one after the other, without an end."""
    word = name.removesuffix(".img").partition("-")[0]
    yield _HEADS.get(word, _KINDS[word])
    while True:
        yield _KINDS[word]
