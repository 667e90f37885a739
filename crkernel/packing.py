"""Jupyter's messages on their way in and out, without what this kernel has no use for.

jupyter_client makes a date of all that looks like one, and writes the header of a request anew into
each of the four or five messages that answer it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

from jupyter_client import protocol_version  # type: ignore[attr-defined]
from jupyter_client.adapter import adapt
from jupyter_client.jsonutil import json_default
from jupyter_client.session import DELIM, Session, json_packer
from traitlets import Callable

Json = dict[str, Any]
_PARTS = 5
"""Of each message: a signature, and what it is of."""
_WRITE = json.JSONEncoder(default=json_default, ensure_ascii=False, allow_nan=False).encode
"""As the base class writes JSON, which makes an encoder for each part."""


def _pack(value: Any) -> bytes:
    try:
        return _WRITE(value).encode()
    except (TypeError, ValueError):
        return json_packer(value)  # which mends it, or tells what is wrong with it


class Packing(Session):
    """As the base class, but that dates stay texts."""

    pack = Callable(_pack)
    _parent: tuple[Json, bytes] = ({}, b"{}")
    """The header that the newest message answers, as it is and packed."""

    def msg_header(self, msg_type: str) -> Json:
        """The header of a new message."""
        return {
            "msg_id": self.msg_id,
            "msg_type": msg_type,
            "username": self.username,
            "session": self.session,
            "date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "version": protocol_version,
        }

    def deserialize(self, msg_list: Sequence[Any], content: bool = True, copy: bool = True) -> Json:
        """A message from its frames; with its content packed for who only looks at it first. Raises
        ValueError, TypeError or KeyError for what is none."""
        parts = msg_list[:_PARTS] if copy else [bytes(part.bytes) for part in msg_list[:_PARTS]]
        if len(parts) < _PARTS:
            raise TypeError(f"a message has {_PARTS} parts, not {len(parts)}")
        if self.auth is not None:
            self._check(parts[0], parts[1:], once=content)
        header, parent, metadata = map(self.unpack, parts[1:4])
        message = {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": metadata,
            "content": self.unpack(parts[4]) if content else parts[4],
            "buffers": [memoryview(part) for part in msg_list[_PARTS:]],
        }
        return adapt(message)  # of an older protocol

    def _check(self, signature: bytes, signed: Sequence[bytes], *, once: bool) -> None:
        """Raises ValueError for what nobody has signed, or comes `once` and again."""
        if signature in self.digest_history:
            raise ValueError(f"the signature {signature!r} came before")
        if not compare_digest(signature, self.sign(list(signed))):
            raise ValueError(f"the signature {signature!r} is wrong")
        if once:
            self._add_digest(signature)

    def serialize(self, msg: Json, ident: list[bytes] | bytes | None = None) -> list[bytes]:
        """The frames of a message."""
        header, packed = self._parent
        if header is not msg["parent_header"]:
            header = msg["parent_header"]
            packed = self.pack(header)
            self._parent = header, packed
        content = msg["content"]
        body = content if isinstance(content, bytes) else self.pack(content)
        parts = [self.pack(msg["header"]), packed, self.pack(msg["metadata"]), body]
        idents = ident if isinstance(ident, list) else [] if ident is None else [ident]
        return [*idents, DELIM, self.sign(parts), *parts]
