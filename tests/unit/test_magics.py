"""Magics: what is taken for one, its arguments, what is said about mistakes, completion."""

from __future__ import annotations

import random
from typing import Any

import pytest

from crkernel.checkpoint import Checkpoint
from crkernel.errors import BadMagic
from crkernel.magic_help import asked_about, complete, help_at, help_text, lsmagic_text
from crkernel.magic_syntax import Command, misplaced, parse
from crkernel.magic_table import MAGICS, Magic
from crkernel.timeline import Timeline


def one(cell: str) -> Command:
    parsed = parse(cell)
    assert parsed.code == ""
    (command,) = parsed.commands
    return command


# -- what is a magic ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "\n\n",
        "// only a comment",
        "1 + 1",
        "7\n% 2",
        "let a = 7\n%a",
        "const s = `\n%undo\n`",
        "const s = '%undo'",
        '"%undo"',
        "/*\n%undo\n*/",
        "// note\nx\n%undo",
        "x = a\n%rewind\n3",
        "`\n%%rerun 3\n`",
        "a ? b : c",
        "\ufeffx",
    ],
)
def test_javascript_is_left_alone(cell: str) -> None:
    assert parse(cell).commands == ()
    assert parse(cell).code is cell


@pytest.mark.parametrize(
    "cell",
    ["%undo", "  %undo  ", "\n\n%undo\n", "// why\n%undo", "\t%undo\r\n", "%undo\n// that was it"],
)
def test_a_line_magic_alone(cell: str) -> None:
    assert one(cell) == Command("undo")


def test_line_magics_come_first_and_keep_the_line_numbers() -> None:
    cell = "// go back\n%undo 2\n\n  %checkpoint here\nlet x = 7\n%undo"
    parsed = parse(cell)
    assert parsed.commands == (Command("undo", ("2",)), Command("checkpoint", ("here",)))
    assert parsed.code == "// go back\n\n\n\nlet x = 7\n%undo"


def test_a_cell_magic_takes_the_rest_as_it_is() -> None:
    command = one("\n // so\n%%rerun  3 \r\n  let x = 1\n%undo\n\n")
    assert command == Command("rerun", ("3",), body="\n\n\n  let x = 1\n%undo\n\n")
    assert command.magic is MAGICS["rerun"]


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("%rewind?", ("rewind",)),
        ("%rewind ?", ("rewind",)),
        ("%rewind??", ("rewind",)),
        ("%%rerun?", ("rerun",)),
        ("?%rewind", ("rewind",)),
        ("? %%rerun", ("rerun",)),
        ("%?", ()),
        ("?%", ()),
        ("%help rewind", ("rewind",)),
        ("%help %rewind", ("rewind",)),
        ("%help", ()),
    ],
)
def test_ways_to_ask_for_help(cell: str, name: tuple[str, ...]) -> None:
    assert one(cell) == Command("help", name)


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "args"),
    [
        ("%rewind 7", ("7",)),
        ("%rewind 7+1", ("7+1",)),
        ("%rewind -2", ("-2",)),
        ("%rewind  before   5", ("before 5",)),
        ("%rewind 'before 5'", ("before 5",)),
        ("%rewind before -1", ("before -1",)),
        ("%rewind r1.7", ("r1.7",)),
        ("%recall head", ("head",)),
        ("%undo", ()),
        ("%undo 12", ("12",)),
        ("%checkpoint", ()),
        ("%checkpoint v1.2-a", ("v1.2-a",)),
        ("%rerun 3", ("3",)),
        ("%rerun before 3", ("before 3",)),
        ("%rerun 3..7", ("3", "7")),
        ("%rerun 3 ..7", ("3", "7")),
        ("%rerun 3.. 7", ("3", "7")),
        ("%rerun -3 .. before 8", ("-3", "before 8")),
        ("%rerun r1.3..r1.7", ("r1.3", "r1.7")),
        ("%config", ()),
        ("%config limit", ("limit",)),
        ("%config limit=5", ("limit", "5")),
        ("%config limit 2 GiB", ("limit", "2 GiB")),
        ("%config CRKernel.limit = 5 ", ("CRKernel.limit", "5")),
        ("%config a = 'b c'", ("a", "b c")),
        ('%config a = ""', ("a", "")),
        ('%config a = {"b": [1, "="]}', ("a", '{"b": [1, "="]}')),
        ("%config a = it's", ("a", "it's")),
    ],
)
def test_arguments_come_in_units(cell: str, args: tuple[str, ...]) -> None:
    assert one(cell).args == args


def test_counts_and_options() -> None:
    assert [one(cell).count for cell in ("%undo", "%redo 3")] == [1, 3]
    assert one("%timeline --all").options == {"--all"}
    assert one("%timeline").options == frozenset()


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%", "a magic without a name"),
        ("%%", "a magic without a name"),
        ("% undo", "a magic without a name"),
        ("%rewnd 3", "unknown magic %rewnd; did you mean %rewind?"),
        ("%Undo", "unknown magic %Undo; did you mean %undo?"),
        ("%pip install x", "unknown magic %pip; did you mean %npm?"),
        ("%undo;", "unknown magic %undo;; did you mean %undo?"),
        ("%xyzzy", "unknown magic %xyzzy"),
        ("%7", "unknown magic %7"),
        ("%%timelin", "did you mean %timeline?"),
        ("%rewnd?", "did you mean %rewind?"),
        ("?%rewind 3", "takes no arguments"),
        ("%help rewnd", "did you mean %rewind?"),
        ("%" + "x" * 5000, "unknown magic %xxx"),
        ("%rewind", "%rewind needs a checkpoint"),
        ("%recall", "%recall needs a checkpoint"),
        ("%rerun", "%rerun needs a checkpoint"),
        ("%%rerun\nx", "%rerun needs a checkpoint"),
        ("%rewind before", "needs a checkpoint after before"),
        ("%rewind ''", "needs a checkpoint"),
        ("%rewind 3 4", "takes one checkpoint, not '3 4'"),
        ("%rewind 3 before", "needs a checkpoint after before"),
        ("%rewind 3 // back", "takes one checkpoint"),
        ("%rewind --hard 3", "%rewind has no option --hard"),
        ("%rewind -f 3", "%rewind has no option -f"),
        ("%rewind 'x", "a quotation is not closed"),
        ("%undo 0", "a positive number, not '0'"),
        ("%undo -1", "a positive number, not '-1'"),
        ("%redo two", "a positive number, not 'two'"),
        ("%undo 1.5", "a positive number"),
        ("%undo " + "9" * 5000, "a positive number"),
        ("%undo 1 2", "takes one argument, not 2"),
        ("%reset now", "%reset takes no argument"),
        ("%status x", "%status takes no argument"),
        ("%timeline 3", "%timeline takes no argument"),
        ("%timeline --al", "has no option --al; did you mean --all?"),
        ("%timeline --all=yes", "has no option --all=yes; did you mean --all?"),
        ("%checkpoint head", "cannot be a label"),
        ("%checkpoint a b", "takes one argument, not 2"),
        ("%checkpoint 7", "cannot be a label"),
        ("%rerun 3..", "say where the range ends, e.g. %rerun 3..head"),
        ("%rerun ..3", "say where the range begins"),
        ("%rerun ..", "say where the range begins"),
        ("%rerun 3..5..7", "is not one range"),
        ("%rerun 3 7", "takes one checkpoint"),
        ("%rerun 3..before", "after before"),
        ("%config a =", "a value is missing after a ="),
        ("%config = 3", "is not the name of a setting"),
        ("%%timeline\nx", "%timeline is no cell magic: write it with one %"),
        ("%%rewind 3\nx", "%rewind is no cell magic"),
        ("%%rerun 3", "%%rerun needs code below it"),
        ("%%rerun 3\n \n", "%%rerun needs code below it"),
        ("%undo\n%%rerun 3\nx", "%%rerun must come first in its cell"),
        ("%%rerun 3\n\n%time f()", "%%rerun runs code, or one %npm, not %time"),
        ("%%rerun 3\n%%time\nf()", "%%rerun runs code, or one %npm, not %time"),
        ("%%rerun 3\n%npm ls\n%npm ls", "not both or more"),
        ("%%rerun 3\n%npm ls\n1", "not both or more"),
        ("%%rerun 3\n%npm instal x", "instal"),
        ("%undo\n%", "a magic without a name"),
    ],
)
def test_mistakes_say_what_is_wrong_and_what_to_do(cell: str, says: str) -> None:
    with pytest.raises(BadMagic) as caught:
        parse(cell)
    assert says in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint


def test_any_text_gives_a_cell_or_a_clear_error() -> None:
    rng = random.Random(4)
    pieces = ["%", "%%", "?", " ", "\n", "rewind", "rerun", "config", "undo", "3", "..", "before"]
    pieces += ["-2", "--all", "'", '"', "=", "//", "\\", "é", "\r\n", "\x00", "+", "timeline"]
    timeline = Timeline()
    for _ in range(5000):
        cell = "".join(rng.choice(pieces) for _ in range(rng.randrange(12)))
        complete(cell, rng.randrange(len(cell) + 1), timeline)
        try:
            parsed = parse(cell)
        except BadMagic:
            continue
        assert all(command.name in MAGICS for command in parsed.commands)
        if parsed.code:
            assert parsed.code.count("\n") == cell.count("\n")


def test_a_setting_is_explained_where_the_cursor_is_in_its_name() -> None:
    def settings() -> dict[str, str]:
        return {"colors": "Colours of values."}

    assert help_at("%config colors", 11, settings) == "colors: Colours of values."
    for cell, cursor in [("%config colors", 3), ("%config other", 11)]:
        assert help_at(cell, cursor, settings) == help_text("config")


@pytest.mark.parametrize(
    ("cell", "asked"),
    [
        ("add?", ("add", 0)),
        ("?add", ("add", 0)),
        ("??add.call", ("add.call", 1)),
        ("?add?", None),
        ("?%undo", None),
    ],
)
def test_a_question_mark_before_a_name_asks_too(cell: str, asked: tuple[str, int] | None) -> None:
    assert asked_about(cell) == asked


# -- help --------------------------------------------------------------------------------------


def failing_at(place: str, name: str, message: str) -> dict[str, Any]:
    """An error of cell 5."""
    return {"name": name, "message": message, "traceback": [f"cell 5:{place}", "…"]}


def to_move(magic: str | None) -> str | None:
    """What is said of a magic that stands where none can."""
    return magic and f"magics stand above the code: move {magic} up, or into a cell of its own"


@pytest.mark.parametrize(
    ("code", "name", "message", "line", "about"),
    [
        ("let x = 1\n%timeline", "ReferenceError", "timeline is not defined", 2, "%timeline"),
        ("let x = 1\n  %%time\nf()", "SyntaxError", "Unexpected token '%'", 2, "%time"),
        ("x\n%rewind 3", "SyntaxError", "Unexpected number", 2, "%rewind"),
        ("x\n%who\n%status", "ReferenceError", "status is not defined", 3, "%status"),
        ("`\n%status\n`\nJSON.parse('{')", "SyntaxError", "Expected property name", 4, None),
        ("`\n%status\n`\nstatus", "ReferenceError", "status is not defined", 4, None),
        ("x\n%timeline", "ReferenceError", "x is not defined", 1, None),
        ("x\n%timeline", "TypeError", "timeline is not defined", 2, None),
        ("x\n%timelines", "SyntaxError", "Unexpected token", 2, None),
        ("x\n%timeline", "SyntaxError", "of another cell", 3, None),
    ],
)
def test_a_magic_below_code_is_told(
    code: str, name: str, message: str, line: int, about: str | None
) -> None:
    error = failing_at(f"{line}:2", name, message)
    assert misplaced(code, error) == to_move(about)
    assert misplaced(code, error | {"traceback": []}) is None
    assert misplaced(code, error | {"traceback": ["SyntaxError"]}) is None


@pytest.mark.parametrize(
    ("code", "name", "message", "place", "about"),
    [
        ("x %timeline", "ReferenceError", "timeline is not defined", "1:4", "%timeline"),
        ("let x = 1 %who", "ReferenceError", "who is not defined", "1:12", "%who"),
        ("f()\n\tg() %time  h()", "SyntaxError", "Unexpected identifier 'h'", "2:13", "%time"),
        ("f() %%timeit", "SyntaxError", "Unexpected token '%'", "1:6", "%timeit"),
        ("x %timeline", "ReferenceError", "x is not defined", "1:1", None),
        ("x % time", "ReferenceError", "time is not defined", "1:5", None),
        ("x%time", "ReferenceError", "time is not defined", "1:3", None),
        ("x %times", "ReferenceError", "times is not defined", "1:4", None),
        ("x %time + a b", "SyntaxError", "Unexpected identifier 'b'", "1:13", None),
        ("x = ' %who ' + who", "ReferenceError", "who is not defined", "1:16", None),
    ],
)
def test_a_magic_behind_code_is_told(
    code: str, name: str, message: str, place: str, about: str | None
) -> None:
    assert misplaced(code, failing_at(place, name, message)) == to_move(about)


@pytest.mark.parametrize("magic", MAGICS.values(), ids=MAGICS)
def test_each_magic_is_explained_with_an_example(magic: Magic) -> None:
    text = help_text(magic.name)
    assert text.startswith(f"%{magic.name}")
    assert magic.usage in text
    assert magic.summary in text
    assert "Example" in text
    assert "oes not" in text or "no code runs" in text
    assert max(map(len, text.splitlines())) <= 100
    assert all(option in text for option in magic.options)
    assert help_text(f"%{magic.name}") == text
    assert f"%{magic.name} " in lsmagic_text()
    examples = [x.strip() for x in text.splitlines() if x.startswith(f"  %{magic.name}")]
    assert examples
    for example in examples:
        assert one(example).name in (magic.name, "help")


def test_the_table_is_what_the_documentation_lists() -> None:
    names = (
        "rewind undo redo rerun checkpoint timeline recall forget reset config npm status"
        " time timeit stack who whos lsmagic help"
    )
    assert list(MAGICS) == names.split()
    assert {m.name for m in MAGICS.values() if m.changes_state} == {
        "rewind",
        "undo",
        "redo",
        "rerun",
        "reset",
        "npm",
        "time",
        "timeit",
    }
    assert [m.name for m in MAGICS.values() if m.cell] == ["rerun", "time", "timeit"]


def test_help_for_what_does_not_exist() -> None:
    with pytest.raises(BadMagic, match="did you mean %rewind"):
        help_text("rewnd")


# -- completion --------------------------------------------------------------------------------


@pytest.fixture
def timeline() -> Timeline:
    timeline = Timeline()
    timeline.append(Checkpoint("0", None, None, 0.0))
    for key, parent in (("1", "0"), ("1+1", "1"), ("12", "1+1")):
        timeline.append(Checkpoint(key, parent, "x", 0.0))
    timeline.label("1", "good")
    return timeline


REFS = ["12", "1+1", "1", "0", "good", "head", "root", "before"]
SETTINGS = {"limit": (), "log": ("few", "all"), "engine": ()}


@pytest.mark.parametrize(
    ("marked", "matches", "word"),
    [
        ("%re|", ["%recall", "%redo", "%rerun", "%reset", "%rewind"], "%re"),
        ("%|", sorted(f"%{name}" for name in MAGICS), "%"),
        ("%%|", ["%%rerun", "%%time", "%%timeit"], "%%"),
        ("?%rew|", ["%rewind"], "%rew"),
        ("  %rew|ind 3", ["%rewind"], "%rew"),
        ("// é𝒳\n%undo\n %rew|", ["%rewind"], "%rew"),
        ("%rewind |", REFS, ""),
        ("%rewind 1|", ["12", "1+1", "1"], "1"),
        ("%rewind he|", ["head"], "he"),
        ("%rewind before |", REFS[:-1], ""),
        ("%rewind before g|", ["good"], "g"),
        ("%rewind 1 |", [], ""),
        ("%recall g|", ["good"], "g"),
        ("%rerun 1..|", REFS, ""),
        ("%rerun 1..1|", ["12", "1+1", "1"], "1"),
        ("%rerun before 1 .. be|", ["before"], "be"),
        ("%rerun 1 .. before |", REFS[:-1], ""),
        ("%%rerun g|", ["good"], "g"),
        ("%timeline |", ["--all"], ""),
        ("%timeline --|", ["--all"], "--"),
        ("%timeline --all |", [], ""),
        ("%config l|", ["limit", "log"], "l"),
        ("%config limit = |", [], ""),
        ("%config log = |", ["all", "few"], ""),
        ("%config log=f|", ["few"], "f"),
        ("%config log a|", ["all"], "a"),
        ("%help un|", ["undo"], "un"),
        ("%help %un|", ["%undo"], "%un"),
        ("%checkpoint g|", ["good"], "g"),
        ("%undo |", [], ""),
        ("%xyzzy |", [], ""),
        ("%rewind?|", [], ""),
        ("%timeit |", ["-n", "-r"], ""),
        ("%timeit -n 5 -|", ["-r"], "-"),
        ("%timeit -n |", [], ""),
    ],
)
def test_completion(timeline: Timeline, marked: str, matches: list[str], word: str) -> None:
    cursor = marked.index("|")
    cell = marked.replace("|", "", 1)
    assert complete(cell, cursor, timeline, lambda: SETTINGS) == (
        matches,
        cursor - len(word),
        cursor,
    )


@pytest.mark.parametrize(
    "marked",
    [
        *("x|", "|", "|%undo", "x\n%re|", "%undo\nx|", "%undo\n|", "%%rerun 3\n%re|", "`\n%re|"),
        *(
            "%time |",
            "%time a.|b",
            "%timeit -n 5 a|",
            "%timeit -n5 -r 2 -1 + a|",
            "%undo\n%time a|",
        ),
    ],
)
def test_no_completion_outside_of_magics(timeline: Timeline, marked: str) -> None:
    assert complete(marked.replace("|", ""), marked.index("|"), timeline, lambda: SETTINGS) is None
