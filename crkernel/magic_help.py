"""Help while a magic is typed: its texts, completion, and whether Enter runs the cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crkernel import npm
from crkernel.checkpoint import KEYWORDS
from crkernel.errors import BadMagic
from crkernel.magic_syntax import is_magic, lookup, parse
from crkernel.magic_table import MAGICS, Magic
from crkernel.timeline import Timeline

Completion = tuple[list[str], int, int]
"""Matches and the part of the cell, in code points, that each of them replaces."""

Settings = Callable[[], Mapping[str, Sequence[str]]]
"""Gives the kernel's settings, and of each the words that it takes if it takes no others."""


Explanations = Callable[[], Mapping[str, str]]
"""Gives of each of the kernel's settings what it is for."""

_NAME = r"(?:[^\W\d]|\$)[\w$]*"
_CHAIN = rf"{_NAME}(?:\??\.{_NAME})*"
_ASKED = re.compile(
    rf"\s*(?:(?P<name>{_CHAIN})(?P<marks>\?{{1,2}})|(?P<before>\?{{1,2}})\s*(?P<asked>{_CHAIN}))\s*"
)


def asked_about(cell: str) -> tuple[str, int] | None:
    """The name that a cell like `name?` or `?name` asks about, which is no JavaScript, and the
    level of detail: 1 for `name??`, which wants the source."""
    match = _ASKED.fullmatch(cell)
    if match is None:
        return None
    return match["name"] or match["asked"], len(match["marks"] or match["before"]) - 1


def help_text(name: str) -> str:
    """All there is to say about one magic."""
    magic = lookup(name.lstrip("%"))
    return f"{magic.usage}\n{magic.summary}\n\n{magic.help}"


def lsmagic_text() -> str:
    """All magics, one a line."""
    width = max(len(name) for name in MAGICS)
    lines = [f"%{magic.name:<{width}}  {magic.summary}" for magic in MAGICS.values()]
    return "\n".join([*lines, "", "%name? explains a magic."])


def help_at(cell: str, cursor: int, settings: Explanations = dict) -> str | None:
    """The help for the magic or the setting that the cursor is in; None where it is in none."""
    line = _magic_before(cell[:cursor])
    if line is None:
        return None
    rest = re.match(r"\w*", cell[cursor:])
    line += rest[0] if rest else ""
    name = re.match(r"(?:\?\s*)?%{1,2}(\w+)", line)
    if not name or name[1] not in MAGICS:
        return None
    word = re.fullmatch(r"%\w+\s+(\w+)", line) if MAGICS[name[1]].argument == "setting" else None
    explained = settings().get(word[1]) if word else None
    return f"{word[1]}: {explained}" if word and explained else help_text(name[1])


@dataclass(frozen=True, slots=True)
class Pieces:
    """The JavaScript of a cell, as whether Enter runs it depends on that."""

    lines: tuple[str, ...]
    """What stands behind magics like %time; it cannot go on below."""
    script: str
    """All that stands below magics, on the lines where it was typed."""
    body: bool
    """Whether that belongs to a cell magic, which ends with an empty line."""


def is_complete(cell: str) -> dict[str, str] | Pieces:
    """What is_complete_request answers for a cell of magics, or one that asks about a name; for
    others what the guest has to look at."""
    if asked_about(cell) is not None:
        return {"status": "complete"}
    try:
        parsed = parse(cell)
    except BadMagic:
        if _lacks_body(cell):
            return {"status": "incomplete", "indent": ""}
        return {"status": "complete"}  # running it explains what is wrong
    body = parsed.commands[-1].body if parsed.commands else None
    lines = tuple(c.code for c in parsed.commands if c.code is not None and c.body is None)
    if body is None and not lines and not parsed.code.strip() and parsed.commands:
        return {"status": "complete"}
    return Pieces(lines, parsed.code if body is None else body, body is not None)


def without_magics(cell: str) -> str:
    """The cell with blanks in place of its magics, so that positions in it stay the same."""
    lines = cell.split("\n")
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped and not stripped.startswith("//"):
            if not is_magic(stripped):
                break
            start = _code_in(line)
            head, code = line[:start], "" if start is None else line[start:]
            # A character beyond the BMP takes two UTF-16 units.
            lines[number] = " " * (len(head.encode("utf-16-le", "surrogatepass")) // 2) + code
    return "\n".join(lines)


def _lacks_body(cell: str) -> bool:
    """Whether a cell magic is right so far and its body is still to come."""
    try:
        parse(f"{cell}\n0")
    except BadMagic:
        return False
    return not cell.endswith("\n")


def complete(
    cell: str, cursor: int, timeline: Timeline, settings: Settings = dict
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
    """The line up to the cursor, without its indentation, if what stands there is of a magic."""
    *above, line = text.split("\n")
    for earlier in map(str.strip, above):
        if not earlier or earlier.startswith("//"):
            continue
        if not is_magic(earlier) or earlier.startswith("%%"):
            return None
    line = line.lstrip()
    return line if is_magic(line) and _code_in(line) is None else None


def _code_in(line: str) -> int | None:
    """Where the code begins in the line of a magic that runs what stands behind it, like %time."""
    match = re.match(r"\s*%(?P<name>\w+)\s+(?P<options>(?:-[a-z]\s*\d+\s+)*)", line)
    magic = MAGICS.get(match["name"]) if match else None
    if match is None or magic is None or magic.argument != "code":
        return None
    if not magic.options:
        return match.start("options")
    option = re.fullmatch(r"|-[a-z]?\s*\d*", line[match.end() :])  # as far as it is written
    return None if option else match.end()


def _last_word(magic: Magic, text: str) -> tuple[str, str]:
    """The arguments before the word at the cursor, and that word as far as it is written."""
    also = {"range": r"|\.\.", "setting": "|="}.get(magic.argument, "")
    match = re.match(rf".*(?:\s{also})", text, re.DOTALL)
    split = match.end() if match else 0
    return text[:split], text[split:]


def _candidates(
    magic: Magic, before: str, word: str, timeline: Timeline, settings: Settings
) -> list[str]:
    if magic.argument == "npm":
        return npm.candidates(before, word)
    if magic.argument == "setting":
        named = re.fullmatch(r"\s*(?:(\w+)(?:\s*=\s*|\s+))?", before)
        return sorted(settings().get(named[1], ()) if named[1] else settings()) if named else []
    if magic.argument == "code" and before.split()[-1:] and before.split()[-1] in magic.options:
        return []  # a number
    if magic.options and (not word or word.startswith("-")):
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
    sign = "%" if word.startswith("%") else ""
    return [sign + name for name in sorted(MAGICS)] if magic.argument == "magic" else []
