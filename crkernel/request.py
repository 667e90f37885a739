"""One execute_request: its magics, its code, its reply."""

from __future__ import annotations

import traceback
from typing import Any, Protocol

from crkernel import magic_help, magics
from crkernel.errors import CRKernelError, UserError
from crkernel.magic_syntax import misplaced, parse
from crkernel.outcome import Outcome, Sink, bundle
from crkernel.session import Session
from crkernel.sink import IOPubSink


class Host(Protocol):
    """What a request needs of the kernel."""

    notebook: Session
    execution_count: int

    async def ready(self) -> None:
        """Wait until there is a guest. Raises CRKernelError."""

    async def do_inspect(self, code: str, cursor_pos: int, detail_level: int = 0) -> dict[str, Any]:
        """The content of inspect_reply."""

    def settings(self) -> dict[str, str]:
        """All settings, as text."""

    def change_setting(self, name: str, text: str) -> str:
        """Set one and say from when it holds. Raises UserError."""


class Request:
    """One execute_request: where its output goes, and which execution counts it takes.

    It is what magics see of the kernel (`magics.Frontend`).
    """

    def __init__(self, kernel: Host, sink: IOPubSink, silent: bool) -> None:
        self._kernel = kernel
        self._silent = silent
        self._taken = silent  # whether the request's own count was given to a cell
        self._payload: list[dict[str, Any]] = []
        self.session = kernel.notebook
        self._out = sink
        self.sink: Sink = sink
        self.source = ""

    async def run(self, code: str, user_expressions: dict[str, str]) -> Outcome:
        """Magics first, then JavaScript. Raises CRKernelError."""
        self.session.begin_request()
        self.source = code
        if (asked := magic_help.asked_about(code)) is not None:
            return await self._explain(*asked)
        cell = parse(code)
        for command in cell.commands:
            if self._silent and command.magic.changes_state:
                raise UserError(
                    f"%{command.name} cannot be silent: it makes history",
                    hint="send it as an ordinary cell",
                )
            if command.magic.needs_guest:
                await self._kernel.ready()
            outcome = await magics.run(command, self)
            if outcome is not None and outcome.status != "ok":
                return outcome
        if cell.commands and not cell.code.strip():
            return await self._evaluate(user_expressions) if user_expressions else Outcome("ok")
        await self._kernel.ready()
        outcome = await self.session.execute(
            cell.code,
            self.next_count(),
            self.sink,
            silent=self._silent,
            user_expressions=user_expressions,
            source=code if cell.commands else None,
        )
        if outcome.result is not None:
            self.sink.result(self._kernel.execution_count, outcome.result)
        if outcome.error is not None and (hint := misplaced(cell.code, outcome.error)):
            outcome.error["traceback"].append(f"hint: {hint}")
        return outcome

    async def _evaluate(self, expressions: dict[str, str]) -> Outcome:
        """Those of a cell without code: no cell of the guest, so no checkpoint is made of them."""
        await self._kernel.ready()
        count = self._kernel.execution_count
        return await self.session.execute(
            "", count, self.sink, silent=True, user_expressions=expressions
        )

    async def _explain(self, name: str, detail: int) -> Outcome:
        """Show in the pager what there is to say of a name. Raises UserError."""
        await self._kernel.ready()
        await self.session.settled()
        answer = await self._kernel.do_inspect(name, len(name), detail)
        if not answer["found"]:
            raise UserError(f"there is nothing to say of {name}", hint="is the name right?")
        self._payload.append({"source": "page", "data": answer["data"], "start": 0})
        return Outcome("ok")

    def reply(self, outcome: Outcome) -> dict[str, Any]:
        """Publish the error if there is one; the content of execute_reply."""
        content: dict[str, Any] = {
            "status": outcome.status,
            "execution_count": self._kernel.execution_count,
        }
        if outcome.error is not None:
            failed = {
                "ename": outcome.error["name"],
                "evalue": outcome.error["message"],
                "traceback": outcome.error["traceback"],
            }
            self._out.error(failed)
            content |= failed
        else:
            expressions = outcome.user_expressions.items()
            content["user_expressions"] = {n: _expression(e) for n, e in expressions}
            content["payload"] = self._payload
        self._out.flush()
        return content

    # -- magics.Frontend

    def next_count(self) -> int:
        """The first cell of a request has its count, each further one takes one more."""
        if self._taken and not self._silent:
            self._kernel.execution_count += 1
        self._taken = True
        return int(self._kernel.execution_count)

    def show(self, text: str, html: str | None = None) -> None:
        """Display something to read."""
        data = {"text/plain": text} | ({"text/html": html} if html else {})
        self.sink.display(data, {}, {}, False)

    def page(self, text: str) -> None:
        """Show a help text in the pager."""
        payload = {"source": "page", "data": {"text/plain": text}, "start": 0}
        self._payload.append(payload)

    def recall(self, code: str) -> None:
        """Offer code as the next cell."""
        self._payload.append({"source": "set_next_input", "text": code, "replace": False})

    def settings(self) -> dict[str, str]:
        """All settings of the running kernel, as text."""
        return self._kernel.settings()

    def set(self, name: str, value: str) -> str:
        """Change one and say from when it holds."""
        return self._kernel.change_setting(name, value)


def as_error(error: CRKernelError) -> dict[str, Any]:
    lines = [f"{error.ename}: {error}"] + ([f"hint: {error.hint}"] if error.hint else [])
    return {"name": error.ename, "message": str(error), "traceback": lines}


def as_bug(error: Exception) -> dict[str, Any]:
    return {
        "name": "InternalError",
        "message": f"crkernel has a bug: {type(error).__name__}: {error}",
        "traceback": traceback.format_exception(error),
    }


def as_failure(error: Exception) -> dict[str, Any]:
    """The content of an error message that can be sent, whatever it is about."""
    words = as_bug(error)["message"].encode(errors="backslashreplace").decode()
    return {"ename": "InternalError", "evalue": words, "traceback": [f"InternalError: {words}"]}


def _expression(entry: Any) -> dict[str, Any]:
    entry = entry if isinstance(entry, dict) else {}
    if entry.get("status") == "ok" and (shown := bundle(entry)) is not None:
        return {"status": "ok", **shown}
    error = entry.get("error")
    error = error if isinstance(error, dict) else {}
    lines = error.get("traceback")
    return {
        "status": "error",
        "ename": str(error.get("name", "Error")),
        "evalue": str(error.get("message", "")),
        "traceback": [str(line) for line in lines] if isinstance(lines, list) else [],
    }
