"""The syntax of magics: which lines of a cell are commands, and what they say.

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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from crkernel import npm
from crkernel.checkpoint import check_label
from crkernel.errors import BadMagic
from crkernel.magic_table import MAGICS, Magic

_LIST = "%lsmagic lists all"
_HELP = re.compile(r"\?\s*%{1,2}(?P<front>\w*)|%{1,2}(?P<back>\w*)\s*\?{1,2}")
_NAME = re.compile(r"\S*")
_ALIKE = {"pip": "npm", "conda": "npm", "hist": "timeline", "history": "timeline"}
"""What IPython has for the like."""
_BELOW = re.compile(rf"[ \t]*%{{1,2}}({'|'.join(MAGICS)})\b")
_BESIDE = re.compile(rf"[ \t]%{{1,2}}({'|'.join(MAGICS)})\b[ \t]*")
_PLACE = re.compile(r"cell \S+:(\d{1,9}):(\d{1,9})")
_RANGE = re.compile(r"\s*\.\.\s*")


@dataclass(frozen=True, slots=True)
class Command:
    """One magic as it was called; `body` is None for a line magic, else what stands below it, on
    the lines where it was typed.

    `args` are complete units: references may consist of two words ("before 5"), a range is two
    references, a setting is its name and, if it is to be set, the value as it was written.
    """

    name: str
    args: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    body: str | None = None
    code: str | None = None
    """What a magic like %time runs, all else of the cell left blank: positions are as typed."""
    numbers: tuple[tuple[str, int], ...] = ()
    """Options with their numbers."""

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
        if not is_magic(line):
            break
        if asked := _help_call(line):
            commands.append(asked)
        elif line.startswith("%%"):
            if commands:
                raise BadMagic(
                    f"{line.split()[0]} must come first in its cell",
                    hint="put the line magics above it into a cell of their own",
                )
            body = "\n".join([""] * (number + 1) + lines[number + 1 :])
            return Cell((_command(line[2:], body),), "")
        else:
            command = _command(line[1:], None)
            if command.code is not None:
                before = " " * (len(lines[number].rstrip()) - len(command.code))
                command = replace(command, code="\n" * number + before + command.code)
            commands.append(command)
        lines[number] = ""
    else:
        # No JavaScript: comments alone are nothing to run after magics.
        if commands:
            return Cell(tuple(commands), "")
    return Cell(tuple(commands), "\n".join(lines) if commands else cell)


def is_magic(line: str) -> bool:
    """Whether a line, without its indentation, is one of a magic."""
    return line.startswith("%") or (line.startswith("?") and line[1:].lstrip().startswith("%"))


def misplaced(code: str, error: Mapping[str, Any]) -> str | None:
    """What to say of an error that comes of a magic below code or behind it, where it is the
    operator %; None if it does not. A text may hold the like, but it is not where the error is."""
    place = _PLACE.fullmatch(error["traceback"][0]) if error["traceback"] else None
    line = code.split("\n")[int(place[1]) - 1 :][:1] if place else []
    magic = _magic_at(line[0], int(place[2]) - 1) if place and line else None
    if magic is None:
        return None
    name, kind, message = magic[1], error["name"], error["message"]
    unknown = kind == "ReferenceError" and message == f"{name} is not defined"
    if unknown or kind == "SyntaxError":
        return f"magics stand above the code: move %{name} up, or into a cell of its own"
    return None


def _magic_at(line: str, column: int) -> re.Match[str] | None:
    """A magic with which a line begins; or that stands in its midst, where V8 stumbles over it or
    over what it is to work on."""
    beside = (found for found in _BESIDE.finditer(line) if found.start() < column <= found.end())
    return _BELOW.match(line) or next(beside, None)


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
    near = (
        [_ALIKE[name]] if name in _ALIKE else difflib.get_close_matches(name.lower(), MAGICS, n=1)
    )
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
    if magic.argument == "npm":
        words = _split(magic, rest)
        npm.parse(words)
        return Command(name, tuple(words))
    if magic.argument == "code":
        return _timed(magic, rest, body)
    if name == "rerun" and body is not None:
        _check_again(magic, body)
    words, options = _words(magic, rest)
    args = _arguments(magic, words)
    if magic.required and not args:
        raise _wrong(magic, f"%{name} needs a checkpoint")
    return Command(name, args, options, body)


def _check_again(magic: Magic, body: str) -> None:
    """A body runs in place of a cell's recorded code: that is JavaScript, or an %npm by itself."""
    cell = parse(body)
    for command in cell.commands:
        if command.name != "npm":
            raise _wrong(magic, f"%%rerun runs code, or one %npm, not %{command.name}")
    if len(cell.commands) > 1 or (cell.commands and cell.code.strip()):
        raise _wrong(magic, "%%rerun runs code, or one %npm, not both or more")


def _wrong(magic: Magic, message: str) -> BadMagic:
    return BadMagic(message, hint=f"usage: {magic.usage}; %{magic.name}? explains it")


def _split(magic: Magic, rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as exc:
        raise _wrong(magic, f"%{magic.name}: a quotation is not closed") from exc


def _words(magic: Magic, rest: str) -> tuple[list[str], frozenset[str]]:
    """Arguments and options apart. A reference such as -2 is no option."""
    words = _split(magic, rest)
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


def _timed(magic: Magic, rest: str, body: str | None) -> Command:
    """Options with numbers, then code: on the same line, or below if it is a cell magic."""
    numbers: dict[str, int] = {}
    while match := re.match(r"(-[A-Za-z]\b|-[A-Za-z](?=\d))\s*(\S*)\s*", rest):
        option, number = match.groups()
        if option not in magic.options:
            break  # an expression such as -x
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise _wrong(magic, f"{option} takes a positive number, not {number!r}")
        numbers[option] = int(number)
        rest = rest[match.end() :]
    if body is not None and rest:
        raise _wrong(magic, f"%%{magic.name} takes its code below it, not {rest!r}")
    if body is None and not rest:
        raise _wrong(magic, f"%{magic.name} needs code")
    code = rest if body is None else body
    return Command(magic.name, body=body, code=code, numbers=tuple(numbers.items()))


def _setting(magic: Magic, rest: str) -> tuple[str, ...]:
    """(), (name,) or (name, value); the value is kept as written, but for quotes around it all."""
    if not rest:
        return ()
    match = re.fullmatch(r"([^\s=]*)\s*(=?)\s*(.*)", rest, re.DOTALL)
    assert match is not None  # any text does
    name, equals, value = match.groups()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        raise _wrong(magic, f"{name!r} is not the name of a setting")
    if not equals and not value:
        return (name,)
    if not value:
        raise _wrong(magic, f'a value is missing after {name} =; "" is the empty one')
    if re.fullmatch(r"\"[^\"\\]*\"|'[^'\\]*'", value):
        value = value[1:-1]
    return (name, value)
