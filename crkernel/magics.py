"""Carries out magics: the table verb -> what it asks of the session."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from crkernel import measuring, render
from crkernel.errors import UserError
from crkernel.guesses import no_setting
from crkernel.magic_help import help_text, lsmagic_text
from crkernel.magic_syntax import Command, parse
from crkernel.npm import parse as npm_call

if TYPE_CHECKING:
    from crkernel.outcome import Outcome, Sink
    from crkernel.session import Session


_RUNS = 7
_NO_NAMES = "no cell has declared a name"
_MOST_ROWS = 1000
"""Of a table of names: the guest looks at each value by itself."""


class Frontend(Protocol):
    """What a magic needs of the kernel it runs in."""

    session: Session
    sink: Sink
    source: str
    """The cell as it was typed."""

    def next_count(self) -> int:
        """The execution count for one more cell of this request; the first is the request's own."""

    def show(self, text: str, html: str | None = None) -> None:
        """Display something to read."""

    def page(self, text: str) -> None:
        """Show a help text in the pager."""

    def recall(self, code: str) -> None:
        """Offer code as the next cell."""

    def settings(self) -> dict[str, str]:
        """All settings of the running kernel, as text."""

    def set(self, name: str, value: str) -> str:
        """Change one and say from when it holds. Raises UserError."""


async def run(command: Command, front: Frontend) -> Outcome | None:
    """Carry out one magic; an outcome only of those that ran cells. Raises CRKernelError."""
    return await _RUN[command.name](command, front)


async def _rewind(command: Command, front: Frontend) -> None:
    _say_where(front, await front.session.rewind(command.args[0]))


async def _undo(command: Command, front: Frontend) -> None:
    _say_where(front, await front.session.undo(command.count))


async def _redo(command: Command, front: Frontend) -> None:
    _say_where(front, await front.session.redo(command.count))


async def _rerun(command: Command, front: Frontend) -> Outcome:
    last = command.args[1] if len(command.args) > 1 else None
    first = command.args[0]

    async def again(code: str, count: int) -> Outcome:
        commands = parse(code).commands
        if not commands:
            return await front.session.execute(code, count, front.sink)
        (npm,) = commands  # nothing else is recorded, or taken as a body
        return await front.session.npm(npm_call(npm.args), lambda: count, front.sink)

    session, count, sink = front.session, front.next_count, front.sink
    return await session.rerun(first, last, command.body, count, sink, again)


async def _checkpoint(command: Command, front: Frontend) -> None:
    label = command.args[0] if command.args else None
    key = await front.session.name(label)
    front.show(f"checkpoint {key}" + (f" is named {label}" if label else ""))


async def _timeline(command: Command, front: Frontend) -> None:
    await front.session.settled()
    limit = None if "--all" in command.options else render.ROWS
    tree, now = front.session.timeline, time.time()
    front.show(render.text(tree, now, limit=limit), render.html(tree, now, limit=limit))


async def _recall(command: Command, front: Frontend) -> None:
    await front.session.settled()
    tree = front.session.timeline
    key = tree.resolve(command.args[0])
    code = tree.get(key).code
    if code is None:
        raise UserError(f"no code led to checkpoint {key}", hint="%timeline shows every state")
    front.recall(code.lstrip("\n"))  # magics stood above it


async def _forget(command: Command, front: Frontend) -> None:
    last = command.args[1] if len(command.args) > 1 else None
    count, freed, skipped = await front.session.drop(command.args[0], last)
    checkpoints = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    lines = [f"{checkpoints} dropped, {freed / (1 << 20):.0f} MiB of staging are free again"]
    for why in dict.fromkeys(skipped.values()):
        keys = ", ".join(key for key, reason in skipped.items() if reason == why)
        lines.append(f"not dropped: {keys} ({why})")
    front.show("\n".join(lines))


async def _reset(_command: Command, front: Frontend) -> None:
    key = await front.session.reset(front.next_count())
    front.show(f"a fresh guest, checkpoint {key}; %undo and %rewind lead back")


async def _config(command: Command, front: Frontend) -> None:
    settings = front.settings()
    if len(command.args) == 2:
        front.show(front.set(*command.args))
        return
    if command.args:
        name = command.args[0]
        if name not in settings:
            raise UserError(no_setting(name, settings), hint="%config lists all")
        settings = {name: settings[name]}
    front.show(render.status_text(settings), render.status_html(settings))


async def _npm(command: Command, front: Frontend) -> Outcome:
    return await front.session.npm(npm_call(command.args), front.next_count, front.sink)


async def _status(_command: Command, front: Frontend) -> None:
    await front.session.settled()
    status = await front.session.status()
    front.show(render.status_text(status), render.status_html(status))


async def _time(command: Command, front: Frontend) -> Outcome:
    return await _measure(command, front, {"kind": "time"})


async def _timeit(command: Command, front: Frontend) -> Outcome:
    numbers = dict(command.numbers)
    measure = {"loops": numbers.get("-n"), "repeats": numbers.get("-r", _RUNS)}
    return await _measure(command, front, {"kind": "timeit", **measure})


async def _measure(command: Command, front: Frontend, measure: dict[str, Any]) -> Outcome:
    """Run code as a cell and show what it took, also if it fails."""
    assert command.code is not None  # the syntax promises it
    count = front.next_count()
    outcome = await front.session.execute(
        command.code, count, front.sink, source=front.source, measure=measure
    )
    if (line := measuring.line_of(outcome.measured)) is not None:
        front.show(line)
    if outcome.result is not None:
        front.sink.result(count, outcome.result)
    return outcome


async def _stack(_command: Command, front: Frontend) -> None:
    await front.session.settled()
    lines = (await front.session.call("stack")).get("lines")
    if not lines or not isinstance(lines, list):
        raise UserError("nothing has failed yet", hint="%stack explains the last error")
    front.show("\n".join(map(str, lines)))


async def _who(_command: Command, front: Frontend) -> None:
    names, _ = await _variables(front, 0)
    front.show("  ".join(names) or _NO_NAMES)


async def _whos(_command: Command, front: Frontend) -> None:
    names, rows = await _variables(front, _MOST_ROWS)
    if not names:
        front.show(_NO_NAMES)
        return
    front.show(measuring.table_text(rows), measuring.table_html(rows))
    if left := len(names) - len(rows):
        front.show(f"{left:,} more: %who names them all")


async def _variables(front: Frontend, described: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """The user's names, and what is known of the first so many."""
    await front.session.settled()
    answer = await front.session.call("variables", described=described)
    rows = measuring.rows_of(answer.get("variables"), described)
    return measuring.names_of(answer.get("names")), rows


async def _lsmagic(_command: Command, front: Frontend) -> None:
    front.show(lsmagic_text())


async def _help(command: Command, front: Frontend) -> None:
    front.page(help_text(command.args[0]) if command.args else lsmagic_text())


def _say_where(front: Frontend, key: str) -> None:
    checkpoint = front.session.timeline.get(key)
    line = (checkpoint.code or "").strip().split("\n")[0]
    code = f": {line}" if line else ""
    front.show(f"now at checkpoint {key}{code}")


_RUN: dict[str, Callable[[Command, Frontend], Awaitable[Outcome | None]]] = {
    "rewind": _rewind,
    "undo": _undo,
    "redo": _redo,
    "rerun": _rerun,
    "checkpoint": _checkpoint,
    "timeline": _timeline,
    "recall": _recall,
    "forget": _forget,
    "reset": _reset,
    "config": _config,
    "npm": _npm,
    "status": _status,
    "time": _time,
    "timeit": _timeit,
    "stack": _stack,
    "who": _who,
    "whos": _whos,
    "lsmagic": _lsmagic,
    "help": _help,
}
