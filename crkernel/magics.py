"""Magics: which lines of a cell are commands, what they say, and their completion.

The rules, all of them:

- Only lines before the first line of JavaScript count; blank lines and `//` comments among them are
  skipped. JavaScript cannot begin with `%`, so a `%` in strings, templates, comments or expressions
  further down is never taken for a magic.
- `%name arguments` is a line magic. There may be several, one a line; then JavaScript may follow,
  which runs after them.
- `%%name arguments` in the first such line is a cell magic: the rest of the cell is its body.
- `%name?` and `?%name` show the help of a magic.
- All commands of a cell are checked before the first one is carried out.
"""

from __future__ import annotations

import difflib
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crkernel import render
from crkernel.checkpoint import KEYWORDS, check_label
from crkernel.errors import BadMagic, UserError
from crkernel.magic_table import MAGICS, Magic
from crkernel.timeline import Timeline

if TYPE_CHECKING:
    from crkernel.outcome import Outcome, Sink
    from crkernel.session import Session

_LIST = "%lsmagic lists all"
_HELP = re.compile(r"\?\s*%{1,2}(?P<front>\w*)|%{1,2}(?P<back>\w*)\s*\?{1,2}")
_NAME = re.compile(r"\S*")
_RANGE = re.compile(r"\s*\.\.\s*")


@dataclass(frozen=True, slots=True)
class Command:
    """One magic as it was called; `body` is None for a line magic.

    `args` are complete units: references may consist of two words ("before 5"), a range is two
    references, a setting is its name and, if it is to be set, the value as it was written.
    """

    name: str
    args: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    body: str | None = None

    @property
    def magic(self) -> Magic:
        """The entry in the table."""
        return MAGICS[self.name]

    @property
    def count(self) -> int:
        """The number that %undo and %redo take; 1 if none was given."""
        return int(self.args[0]) if self.args else 1


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell taken apart: run the commands in order, then `code` unless it is empty.

    In `code` the lines of magics are blank, so that line numbers are those that the user sees.
    """

    commands: tuple[Command, ...]
    code: str


# -- parsing -----------------------------------------------------------------------------------


def parse(cell: str) -> Cell:
    """Take a cell apart by the rules above. BadMagic says what is wrong with a command.

    A cell without magics comes back as it is, with no commands.
    """
    lines = cell.split("\n")
    commands: list[Command] = []
    for number, line in enumerate(lines):
        line = line.strip()
        if not line or line.startswith("//"):
            continue
        if not _is_magic(line):
            break
        if asked := _help_call(line):
            commands.append(asked)
        elif line.startswith("%%"):
            if commands:
                raise BadMagic(
                    f"{line.split()[0]} must come first in its cell",
                    hint="put the line magics above it into a cell of their own",
                )
            body = "\n".join(lines[number + 1 :])
            return Cell((_command(line[2:], body),), "")
        else:
            commands.append(_command(line[1:], None))
        lines[number] = ""
    else:
        # No JavaScript: comments alone are nothing to run after magics.
        if commands:
            return Cell(tuple(commands), "")
    return Cell(tuple(commands), "\n".join(lines) if commands else cell)


def _is_magic(line: str) -> bool:
    return line.startswith("%") or (line.startswith("?") and line[1:].lstrip().startswith("%"))


def _help_call(line: str) -> Command | None:
    match = _HELP.fullmatch(line)
    if match is None:
        if line.startswith("?"):
            raise BadMagic(f"{line.split()[0]} takes no arguments", hint="for help write %rewind?")
        return None
    name = match["front"] or match["back"]
    return Command("help", (lookup(name).name,) if name else ())


def lookup(name: str) -> Magic:
    """The magic of that name, without `%`; BadMagic suggests the nearest one."""
    if not name:
        raise BadMagic("a magic without a name", hint=_LIST)
    if name in MAGICS:
        return MAGICS[name]
    near = difflib.get_close_matches(name.lower(), MAGICS, n=1)
    guess = f"; did you mean %{near[0]}?" if near else ""
    shown = name if len(name) <= 30 else name[:29] + "…"
    raise BadMagic(f"unknown magic %{shown}{guess}", hint=_LIST)


def _command(line: str, body: str | None) -> Command:
    """The command for a line without its `%`; `body` is what follows a cell magic."""
    match = _NAME.match(line)
    name = match[0] if match else ""
    magic = lookup(name)
    rest = line[len(name) :].strip()
    if body is not None and not magic.cell:
        raise _wrong(magic, f"%{name} is no cell magic: write it with one %")
    if body is not None and not body.strip():
        raise _wrong(magic, f"%%{name} needs code below it")
    if magic.argument == "setting":
        return Command(name, _setting(magic, rest))
    words, options = _words(magic, rest)
    args = _arguments(magic, words)
    if magic.required and not args:
        raise _wrong(magic, f"%{name} needs a checkpoint")
    return Command(name, args, options, body)


def _wrong(magic: Magic, message: str) -> BadMagic:
    return BadMagic(message, hint=f"usage: {magic.usage}; %{magic.name}? explains it")


def _words(magic: Magic, rest: str) -> tuple[list[str], frozenset[str]]:
    """Arguments and options apart. A reference such as -2 is no option."""
    try:
        words = shlex.split(rest)
    except ValueError as exc:
        raise _wrong(magic, f"%{magic.name}: a quotation is not closed") from exc
    options = {word for word in words if re.match(r"--|-[A-Za-z]", word)}
    for option in sorted(options - set(magic.options)):
        near = difflib.get_close_matches(option, magic.options, n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise _wrong(magic, f"%{magic.name} has no option {option}{guess}")
    return [word for word in words if word not in options], frozenset(options)


def _arguments(magic: Magic, words: list[str]) -> tuple[str, ...]:
    """The arguments in units; BadMagic if they are not what the magic takes."""
    if not words:
        return ()
    if magic.argument == "range":
        return _range(magic, " ".join(words))
    if magic.argument == "ref":
        return (_reference(magic, " ".join(words)),)
    if magic.argument == "none":
        raise _wrong(magic, f"%{magic.name} takes no argument")
    if len(words) > 1:
        raise _wrong(magic, f"%{magic.name} takes one argument, not {len(words)}")
    word = words[0]
    if magic.argument == "count" and not re.fullmatch(r"[1-9][0-9]{0,8}", word):
        raise _wrong(magic, f"%{magic.name} takes a positive number, not {word!r}")
    if magic.argument == "label":
        check_label(word)
    if magic.argument == "magic":
        return (lookup(word.lstrip("%")).name,)
    return (word,)


def _reference(magic: Magic, text: str) -> str:
    words = text.split()
    if not words or words[-1] == "before":
        raise _wrong(magic, f"%{magic.name} needs a checkpoint{' after before' * bool(words)}")
    if any(word != "before" for word in words[:-1]):
        raise _wrong(magic, f"%{magic.name} takes one checkpoint, not {text!r}")
    return " ".join(words)


def _range(magic: Magic, text: str) -> tuple[str, ...]:
    """One reference or two; no label contains "..", so that the split is sure."""
    parts = _RANGE.split(text)
    if len(parts) > 2:
        raise _wrong(magic, f"{text!r} is not one range")
    if not all(parts):
        side = "begins" if not parts[0] else "ends"
        raise _wrong(magic, f"say where the range {side}, e.g. %{magic.name} 3..head")
    return tuple(_reference(magic, part) for part in parts)


def _setting(magic: Magic, rest: str) -> tuple[str, ...]:
    """(), (name,) or (name, value); the value is kept as written, but for quotes around it all."""
    if not rest:
        return ()
    name, equals, value = (part.strip() for part in rest.partition("="))
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        hint = f": write %config {name.split()[0]} = …" if name.split()[1:] else ""
        raise _wrong(magic, f"{name!r} is not the name of a setting{hint}")
    if not equals:
        return (name,)
    if not value:
        raise _wrong(magic, f'a value is missing after {name} =; "" is the empty one')
    if re.fullmatch(r"\"[^\"\\]*\"|'[^'\\]*'", value):
        value = value[1:-1]
    return (name, value)


# -- help --------------------------------------------------------------------------------------


def help_text(name: str) -> str:
    """All there is to say about one magic."""
    magic = lookup(name.lstrip("%"))
    return f"{magic.usage}\n{magic.summary}\n\n{magic.help}"


def lsmagic_text() -> str:
    """All magics, one a line."""
    width = max(len(name) for name in MAGICS)
    lines = [f"%{magic.name:<{width}}  {magic.summary}" for magic in MAGICS.values()]
    return "\n".join([*lines, "", "%name? explains a magic."])


def help_at(cell: str, cursor: int) -> str | None:
    """The help for the magic that the cursor is in; None where it is in none."""
    line = _magic_before(cell[:cursor])
    if line is None:
        return None
    rest = re.match(r"\w*", cell[cursor:])
    name = re.match(r"(?:\?\s*)?%{1,2}(\w+)", line + (rest[0] if rest else ""))
    return help_text(name[1]) if name and name[1] in MAGICS else None


def is_complete(cell: str) -> dict[str, str] | None:
    """What is_complete_request answers for a cell that begins with a magic, None for others."""
    try:
        parsed = parse(cell)
    except BadMagic:
        if _lacks_body(cell):
            return {"status": "incomplete", "indent": ""}
        return {"status": "complete"}  # running it explains what is wrong
    if not parsed.commands:
        return None
    if parsed.commands[-1].body is not None and not cell.endswith("\n"):
        return {"status": "incomplete", "indent": ""}
    return {"status": "complete"} if not parsed.code.strip() else None


def _lacks_body(cell: str) -> bool:
    """Whether a cell magic is right so far and its body is still to come."""
    try:
        parse(f"{cell}\n0")
    except BadMagic:
        return False
    return not cell.endswith("\n")


# -- completion --------------------------------------------------------------------------------

Completion = tuple[list[str], int, int]
"""Matches and the part of the cell, in code points, that each of them replaces."""


def complete(
    cell: str, cursor: int, timeline: Timeline, settings: Iterable[str] = ()
) -> Completion | None:
    """What could stand at the cursor (code points); None where it is in no magic."""
    line = _magic_before(cell[:cursor])
    if line is None:
        return None
    match = re.fullmatch(r"(\?\s*)?(%{1,2})(\w*)", line)
    if match:
        cells_only = match[2] == "%%" and not match[1]
        matches = [
            match[2] + magic.name
            for magic in MAGICS.values()
            if magic.name.startswith(match[3]) and (magic.cell or not cells_only)
        ]
        return sorted(matches), cursor - len(match[2] + match[3]), cursor
    match = re.fullmatch(r"%{1,2}(\w+)\s(.*)", line, re.DOTALL)
    magic = MAGICS.get(match[1]) if match else None
    if match is None or magic is None:
        return [], cursor, cursor
    before, word = _last_word(magic, match[2])
    names = _candidates(magic, before, word, timeline, settings)
    return [name for name in names if name.startswith(word)], cursor - len(word), cursor


def _magic_before(text: str) -> str | None:
    """The line up to the cursor, without its indentation, if it is one of a magic."""
    *above, line = text.split("\n")
    for earlier in map(str.strip, above):
        if not earlier or earlier.startswith("//"):
            continue
        if not _is_magic(earlier) or earlier.startswith("%%"):
            return None
    line = line.lstrip()
    return line if _is_magic(line) else None


def _last_word(magic: Magic, text: str) -> tuple[str, str]:
    """The arguments before the word at the cursor, and that word as far as it is written."""
    separator = r".*(?:\s|\.\.)" if magic.argument == "range" else r".*\s"
    match = re.match(separator, text, re.DOTALL)
    split = match.end() if match else 0
    return text[:split], text[split:]


def _candidates(
    magic: Magic, before: str, word: str, timeline: Timeline, settings: Iterable[str]
) -> list[str]:
    if word.startswith("--") or (magic.options and not word):
        return [option for option in magic.options if option not in before.split()]
    if magic.argument == "range":
        before = before.rpartition("..")[2]
    words = before.split()
    if magic.argument in ("ref", "range"):
        if any(earlier != "before" for earlier in words):
            return []
        keywords = [k for k in KEYWORDS if k != "before" or not words]
        return [*reversed(timeline), *sorted(timeline.labels), *keywords]
    if words:
        return []
    if magic.argument == "label":
        return sorted(timeline.labels)
    if magic.argument == "setting":
        return sorted(settings)
    return sorted(MAGICS) if magic.argument == "magic" else []


# -- running -----------------------------------------------------------------------------------


class Frontend(Protocol):
    """What a magic needs of the kernel it runs in."""

    session: Session
    sink: Sink

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
    return await front.session.rerun(first, last, command.body, front.next_count, front.sink)


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
    front.recall(code)


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
            near = difflib.get_close_matches(name, settings, 1)
            mean = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"there is no setting {name}{mean}", hint="%config lists all")
        settings = {name: settings[name]}
    front.show(render.status_text(settings), render.status_html(settings))


async def _status(_command: Command, front: Frontend) -> None:
    await front.session.settled()
    status = await front.session.status()
    front.show(render.status_text(status), render.status_html(status))


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
    "reset": _reset,
    "config": _config,
    "status": _status,
    "lsmagic": _lsmagic,
    "help": _help,
}
