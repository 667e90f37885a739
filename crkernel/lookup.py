"""Help while typing: completion, inspection and whether a cell is complete.

Magics are ours, everything else the guest's. Positions are code points here, as in Jupyter's
messages, and UTF-16 units in the guest. What the guest answers is checked before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from crkernel import magic_help
from crkernel.errors import CRKernelError
from crkernel.outcome import Json
from crkernel.session import Session

log = logging.getLogger(__name__)


class Lookup:
    """Answers for one session; `ready` waits for its guest and raises CRKernelError."""

    def __init__(self, session: Session, ready: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._ready = ready

    async def complete(self, code: str, cursor: int | None, settings: magic_help.Settings) -> Json:
        """The content of a complete_reply."""
        cursor = len(code) if cursor is None else min(max(cursor, 0), len(code))
        found = magic_help.complete(code, cursor, self._session.timeline, settings)
        if found is not None:
            matches, start, end = found
            return _completions(start, end, [(match, "magic", "") for match in matches])
        script = magic_help.without_magics(code)
        answer = await self._ask("complete", code=script, cursor=utf16(code, cursor))
        if failed := _failure(answer):
            return _completions(cursor, cursor, []) | failed
        try:
            start, end = (code_points(code, int(answer[key])) for key in ("start", "end"))
            columns = [answer[key] for key in ("matches", "types", "signatures")]
            rows = [(str(a), str(b), str(c)) for a, b, c in zip(*columns, strict=True)]
        except (KeyError, TypeError, ValueError):
            return _completions(cursor, cursor, [])
        return _completions(start, end, rows)

    async def inspect(
        self, code: str, cursor: int, detail: int, settings: magic_help.Explanations = dict
    ) -> Json:
        """The content of an inspect_reply."""
        cursor = min(max(cursor, 0), len(code))
        text = magic_help.help_at(code, cursor, settings)
        if text is not None:
            return {"status": "ok", "found": True, "data": {"text/plain": text}, "metadata": {}}
        script = magic_help.without_magics(code)
        answer = await self._ask(
            "inspect", code=script, cursor=utf16(code, cursor), detail=int(detail)
        )
        if failed := _failure(answer):
            return {"found": False, "data": {}, "metadata": {}} | failed
        data = answer.get("data")
        found = answer.get("found") is True and isinstance(data, dict) and bool(data)
        bundle = {str(mime): str(text) for mime, text in data.items()} if found and data else {}
        return {"status": "ok", "found": bool(bundle), "data": bundle, "metadata": {}}

    async def is_complete(self, code: str) -> Json:
        """The content of an is_complete_reply."""
        found = magic_help.is_complete(code)
        if isinstance(found, dict):
            return dict(found)
        for line in found.lines:
            if (await self._judge(line))["status"] in ("incomplete", "invalid"):
                return {"status": "invalid"}
        answer = await self._judge(found.script)
        if found.body and answer["status"] == "complete" and not code.endswith("\n"):
            return {"status": "incomplete", "indent": ""}
        return answer

    async def _judge(self, script: str) -> Json:
        answer = await self._ask("is_complete", code=script)
        _failure(answer)
        status = answer.get("status")
        if status not in ("complete", "incomplete", "invalid"):
            return {"status": "unknown"}
        indent = {"indent": str(answer.get("indent", ""))} if status == "incomplete" else {}
        return {"status": status, **indent}

    async def _ask(self, op: str, **fields: Any) -> Json:
        """The guest's answer; nothing in it if there is none to be had."""
        try:
            await self._ready()
            return await self._session.call(op, **fields)
        except CRKernelError as error:
            log.debug("no answer to %s: %s", op, error)
            return {}


def _failure(answer: Json) -> Json:
    """The content of an error's reply for an answer that failed in the guest; nothing in it for
    others. Front ends show none of it, but neither does it pass for an empty answer."""
    if answer.get("status") != "error":
        return {}
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    name, message = str(error.get("name")), str(error.get("message"))
    log.warning("a lookup failed in the guest: %s: %s", name, message)
    return {"status": "error", "ename": name, "evalue": message, "traceback": []}


def _completions(start: int, end: int, rows: list[tuple[str, str, str]]) -> Json:
    """`rows` are text, type and signature; what JupyterLab shows of the latter is metadata."""
    types = [
        {"start": start, "end": end, "text": text, "type": kind, "signature": signature}
        for text, kind, signature in rows
    ]
    return {
        "status": "ok",
        "matches": [text for text, _, _ in rows],
        "cursor_start": start,
        "cursor_end": end,
        "metadata": {"_jupyter_types_experimental": types} if types else {},
    }


def utf16(text: str, points: int) -> int:
    """Jupyter counts code points, JavaScript counts UTF-16."""
    return len(text[:points].encode("utf-16-le", "surrogatepass")) // 2


def code_points(text: str, units: int) -> int:
    """The other way; half a character counts as none."""
    raw = text.encode("utf-16-le", "surrogatepass")[: 2 * max(units, 0)]
    return len(raw.decode("utf-16-le", "ignore"))
