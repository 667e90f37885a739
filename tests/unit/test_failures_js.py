"""What the Node guest tells of errors: the spot, the frames, the causes, and what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from test_guest_js import Guest


def test_errors_show_the_users_frames(guest: Guest) -> None:
    guest.value("function f(x) {\n  return x.y.z\n}")
    error = guest.error("\n\n  f({})", cell="8")
    assert error["name"] == "TypeError"
    assert error["message"] == "Cannot read properties of undefined (reading 'z')"
    assert error["code"] is None
    assert not error["interrupted"]
    assert error["traceback"] == [
        "cell 7:2:14",
        "  return x.y.z",
        "             ^",
        "TypeError: Cannot read properties of undefined (reading 'z')",
        "    at f (cell 7:2:14)",
        "    at cell 8:3:3",
    ]
    assert guest.value("new Error('shown').stack") == "'Error: shown\\n    at cell 7:1:1'"


@pytest.mark.parametrize("code", ["1 }", "1 }\n{ 2", "1 }, { 2"])
def test_braces_that_close_nothing(guest: Guest, code: str) -> None:
    spot = ["cell 7:1:3", code.split("\n")[0], "  ^"]
    assert guest.error(code)["traceback"] == [*spot, "SyntaxError: Unexpected token '}'"]
    assert guest.error(f"let x: number = {code}")["name"] == "SyntaxError"


def test_errors_with_codes_and_causes(guest: Guest) -> None:
    guest.colors = "none"
    error = guest.error("require('fs').readFileSync('/nowhere')")
    assert error["code"] == "ENOENT"
    assert not any("node:" in line for line in error["traceback"])
    error = guest.error("throw new Error('outer', {cause: new Error('inner')})")
    assert any("[cause]: Error: inner" in line for line in error["traceback"])
    error = guest.error("throw new AggregateError([new Error('one')], 'all')")
    assert any("Error: one" in line for line in error["traceback"])
    lines = guest.error("await Promise.any([Promise.reject(1)])")["traceback"]
    assert lines == ["AggregateError: All promises were rejected { [errors]: [ 1 ] }"]


def test_errors_show_all_their_causes(guest: Guest) -> None:
    chain = "new Error('0')"
    for depth in range(1, 7):
        chain = f"new Error('{depth}', {{ cause: {chain} }})"
    lines = guest.error(f"throw {chain}")["traceback"]
    for depth in range(6):
        assert any(line.strip() == f"[cause]: Error: {depth}" for line in lines), depth
    lines = guest.error(f"throw new AggregateError([{chain}, new Error('second')], 'all')")[
        "traceback"
    ]
    assert any("[cause]: Error: 0" in line for line in lines)
    assert any("Error: second" in line for line in lines)
    circle = "const e = new Error('circle'); e.cause = e; throw e"
    assert any("[Circular *1]" in line for line in guest.error(circle)["traceback"])


def test_the_spot_of_an_error_is_where_the_users_code_was(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "mine.cjs").write_text("exports.f = () => {\n\treturn null.x\n}\n")
    package = tmp_path / "node_modules" / "theirs"
    package.mkdir(parents=True)
    (package / "index.js").write_text("module.exports = (f) => f()")
    error = guest.error("\n  require('./mine.cjs').f()")
    assert error["traceback"][:3] == [
        f"{tmp_path}/mine.cjs:2:14",
        "\treturn null.x",
        "\t            ^",
    ]
    assert error["traceback"][-1] == "    at cell 7:2:25"
    thrown = "require('theirs')(null)"
    assert guest.error(thrown)["traceback"][:3] == ["cell 7:1:18", thrown, " " * 17 + "^"]
    long = "var a = '" + "x" * 500 + "'; null.x; var b = '" + "y" * 500 + "'"
    place, line, caret = guest.error(long)["traceback"][:3]
    assert (place, len(line)) == ("cell 7:1:518", 162)
    assert line[caret.index("^")] == "x"
    assert line[caret.index("^") - 5 :].startswith("null.x")


@pytest.mark.parametrize(
    ("code", "line", "column"),
    [
        ("import { readFileSync,\n         nope } from 'fs'", 2, 10),
        ("import fs from 'fs'; import { nope as yes } from 'fs'", 1, 31),
        ("import nope from './m.mjs'", 1, 18),
        ("import path from 'path'; import nope from './m.mjs'", 1, 43),
        ("import path from 'path'\nexport { sep, nope } from 'path'", 2, 15),
    ],
)
def test_the_spot_of_what_is_not_exported_is_its_name(
    guest: Guest, tmp_path: Path, code: str, line: int, column: int
) -> None:
    (tmp_path / "m.mjs").write_text("export const m = 1")
    spot = [f"cell 7:{line}:{column}", code.split("\n")[line - 1], " " * (column - 1) + "^"]
    assert guest.error(code)["traceback"][:3] == spot


@pytest.mark.parametrize(
    ("code", "line", "column"),
    [
        ("const at = 1\nawait require('fs').promises.readFile('none')", 2, 1),
        ("import { open } from 'fs/promises'\nconst f = await open('none')", 2, 11),
        ("await Promise.any([Promise.reject(new Error('q'))])", 1, 35),
        ("throw Object.assign(new Error('o', { cause: new Error('c') }), { stack: 'o' })", 1, 45),
    ],
)
def test_the_spot_of_what_was_awaited_or_caused(
    guest: Guest, code: str, line: int, column: int
) -> None:
    spot = [f"cell 7:{line}:{column}", code.split("\n")[line - 1], " " * (column - 1) + "^"]
    assert guest.error(code)["traceback"][:3] == spot


def test_syntax_errors_show_the_spot(guest: Guest) -> None:
    error = guest.error("let ok = 1\n  foo bar", cell="9")
    assert error["traceback"] == [
        "cell 9:2:7",
        "  foo bar",
        "      ^",
        "SyntaxError: Unexpected identifier 'bar'",
    ]
    assert guest.error("foo(1,")["traceback"][:3] == ["cell 7:1:7", "foo(1,", "      ^"]


def test_a_syntax_error_at_run_time_runs_nothing_twice(guest: Guest) -> None:
    error = guest.error("console.log('once'); JSON.parse('{')")
    assert error["name"] == "SyntaxError"
    assert error["traceback"][-1] == "    at cell 7:1:27"
    assert guest.texts() == [("stdout", "once\n")]


def test_a_syntax_error_in_a_file_shows_its_spot(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "bad.js").write_text("\nlet x = = 5\n")
    (tmp_path / "uses.js").write_text("require('./bad.js')")
    shown = [
        f"{tmp_path}/bad.js:2",
        "let x = = 5",
        "        ^",
        "SyntaxError: Unexpected token '='",
    ]
    for code, column in [
        ("0; require('./bad.js')", 12),
        ("0; import fs from 'fs'; import './bad.js'", 32),
        ("0; import './uses.js'", 11),
    ]:
        assert guest.error(code)["traceback"] == [*shown, f"    at cell 7:1:{column}"]
    (tmp_path / "bad.mjs").write_text("import { nope } from 'node:fs'")
    lines = guest.error("0; await import('./bad.mjs')")["traceback"]
    assert lines[0] == f"file://{tmp_path}/bad.mjs:1"
    assert lines[3].startswith("SyntaxError: The requested module 'node:fs' does not provide")
    assert lines[4:] == ["    at async cell 7:1:4"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{\n  "a": }', 2, 8),
        ('{\n  "a": 1,\n}', 3, 1),
        ('{ "a": [1, 2', 1, 13),
        ("", 1, 1),
        ("no", 1, 2),
    ],
)
@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("require('./bad.json')", "7:1:1"),
        ("import d from './bad.json' with { type: 'json' }", "7:1:15"),
    ],
)
def test_a_file_that_is_no_json_shows_its_spot(
    guest: Guest, tmp_path: Path, text: str, line: int, column: int, code: str, place: str
) -> None:
    (tmp_path / "bad.json").write_text(text)
    lines = guest.error(code)["traceback"]
    assert lines[0] == f"{tmp_path}/bad.json:{line}:{column}"
    assert lines[1:3] == [text.split("\n")[line - 1], " " * (column - 1) + "^"]
    assert lines[-1] == f"    at cell {place}"


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("a.ts", "class A {\n  @d() m(): void {}\n}", "decorators are not supported by Node"),
        ("a.mjs", "export @d class A {}", "decorators are not supported by Node"),
        ("a.js", "@d\nclass A {}", "decorators are not supported by Node"),
        ("a.ts", "export const a = <b>hi</b>", "JSX is not supported by Node"),
        ("a.cjs", "exports.a = <b>hi</b>", "JSX is not supported by Node"),
        ("a.mjs", "class A {\n  accessor x = 1\n}", "accessor fields are not supported"),
        ("a.mjs", "const a = 'x @d' + = 1", None),
    ],
)
def test_a_file_with_what_node_does_not_know_says_what_to_do(
    guest: Guest, tmp_path: Path, name: str, text: str, hint: str | None
) -> None:
    (tmp_path / name).write_text(text)
    last = guest.error(f"import './{name}'")["traceback"][-1]
    assert last.startswith(f"hint: {hint}" if hint else "    at cell 7:1:8")


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("throw 42", "Number", "42"),
        ("throw null", "thrown", "null"),
        ("throw undefined", "thrown", "undefined"),
        ("throw 'text'", "String", "'text'"),
        ("throw {a: 1}", "Object", "{ a: 1 }"),
        ("throw Object.create(null)", "thrown", "[Object: null prototype] {}"),
        ("throw {get constructor() { throw 1 }}", "thrown", "{ constructor: [Getter] }"),
        ("throw new Proxy(new Error('p'), {get() { throw 1 }})", "Error", ""),
    ],
)
def test_anything_can_be_thrown(guest: Guest, code: str, name: str, message: str) -> None:
    error = guest.error(code)
    assert (error["name"], error["message"]) == (name, message)
    wants_an_error = any("hint: only an Error tells" in line for line in error["traceback"])
    assert wants_an_error == (name != "Error")
    assert guest.value("1 + 1") == "2"


def test_hostile_errors(guest: Guest) -> None:
    for name in ("stack", "name", "message"):
        getter = "{get() { throw 1 }}"
        guest.error(f"throw Object.defineProperty(new Error('x'), '{name}', {getter})")
    inspector = "[Symbol.for('nodejs.util.inspect.custom')]() { throw new Error('no look') }"
    assert guest.error(f"throw {{ {inspector} }}")["message"] == "a value that cannot be shown"
    assert guest.error(f"({{ {inspector} }})")["message"] == "no look"
    guest.error("Error.prepareStackTrace = () => { throw 5 }; null.x")
    error = guest.error("Error.prepareStackTrace = (e, sites) => sites.join('\\n'); null.x")
    assert not any("main.js" in line for line in error["traceback"])
    assert guest.value("1 + 1") == "2"


def test_what_nobody_caught_is_reported(guest: Guest) -> None:
    guest.value(
        "setTimeout(() => { throw new TypeError('late') }, 1);"
        "Promise.reject(new RangeError('nobody'));"
        "await new Promise(r => setTimeout(r, 30))"
    )
    rejection, exception = [event for event in guest.output() if event["event"] == "error"]
    assert rejection["origin"] == "unhandledRejection"
    assert (rejection["name"], rejection["message"]) == ("RangeError", "nobody")
    assert exception["origin"] == "uncaughtException"
    assert exception["traceback"][0] == "cell 7:1:26"
    assert exception["traceback"][3] == "TypeError: late"
    assert exception["traceback"][4] == "    at Timeout._onTimeout (cell 7:1:26)"


@pytest.mark.parametrize(
    ("event", "fail"),
    [
        ("uncaughtException", "setTimeout(() => { throw new Error('x') }, 1)"),
        ("unhandledRejection", "Promise.reject(new Error('x'))"),
    ],
)
def test_what_a_handler_of_the_user_takes_is_not_reported(
    guest: Guest, event: str, fail: str
) -> None:
    late = f"{fail}; await new Promise(r => setTimeout(r, 20)); 0"
    guest.value(f"process.once('{event}', e => console.log('mine', e.message)); {late}")
    assert guest.texts() == [("stdout", "mine x\n")]
    guest.value(late)
    (report,) = guest.output()
    assert (report["event"], report["origin"]) == ("error", event)


@pytest.mark.parametrize(
    ("code", "spot", "message"),
    [
        ("let a: number = 1\nconst x: number = ;", (2, 19), "Expression expected"),
        ("let a: number = 1\n  foo bar", (2, 7), "Expected ';', '}' or <eof>"),
        ("import fs from 'fs'\n  foo bar", (2, 7), "Expected ';', '}' or <eof>"),
        ("let n: number = 1; let n = 2", (1, 24), "Identifier 'n' has already been declared"),
        ("@dec\nclass A { x: number }", (1, 1), "decorators are not supported by Node"),
        ("class A {\n  @dec() m(): void {}\n}", (2, 3), "decorators are not supported by Node"),
        ("let e = <b>hi</b>", (1, 9), "JSX is not supported by Node"),
        ("let e = (\n  <b/>\n)", (2, 3), "JSX is not supported by Node"),
        ("class A {\n  accessor x: number = 1\n}", (2, 12), "accessor fields are not supported"),
        ("import defer * as f from 'fs'", (1, 14), "import defer is not supported by Node"),
        ("0\nimport source w from './w.wasm'", (2, 15), "import source is not supported"),
        ("function f(a: number) {", (1, 24), "Expected '}', got '<eof>'"),
        ("enum A { B", (1, 11), "Unexpected eof"),
        ("interface A {\n  a: string\n\n", (2, 12), "Unexpected eof"),
        ("let a: number = `abc\n${x}", (2, 4), "Unterminated template"),
        ("\tlet a: '名名' = 1; foo bar", (1, 23), "Expected ';', '}' or <eof>"),
        ("let a: '😀' = 1; foo bar", (1, 22), "Expected ';', '}' or <eof>"),
        ("print('hello'", (1, 7), "missing ) after argument list"),
        ("class X {", (1, 10), "Unexpected end of input"),
        ("module M { }", (1, 1), "`module` keyword is not supported. Use `namespace` instead."),
        ("function f() {\n  import x from 'fs'\n}", (2, 3), "'import', and 'export' cannot"),
    ],
)
def test_who_got_farthest_explains_a_syntax_error(
    shared: Guest, code: str, spot: tuple[int, int], message: str
) -> None:
    error = shared.error(code)
    line, column = spot
    assert error["name"] == "SyntaxError"
    assert error["message"].startswith(message)
    assert error["traceback"] == [
        f"cell 7:{line}:{column}",
        code.split("\n")[line - 1],
        re.sub(r"[^\t]", " ", code.split("\n")[line - 1][: column - 1]) + "^",
        f"SyntaxError: {error['message']}",
    ]


def test_positions_are_those_that_were_typed(guest: Guest) -> None:
    for code, place in [
        ("import fs from 'fs'; fs.nope()", "7:1:25"),
        ("import {\n  join,\n  sep\n} from 'node:path'; null.x", "7:4:26"),
        ("console; import fs from 'fs'; null.x", "7:1:36"),
        ("0; import 'fs'; export * from 'os'; null.x", "7:1:42"),
        ("export const a = null.x", "7:1:23"),
        ("export default null.x", "7:1:21"),
        ("{ a: null.x }", "7:1:11"),
        ("{ a: (null as any).x }", "7:1:20"),
        ("let q: 'ä€😀' = 'ä€😀' as any; (q as any).x.y", "7:1:45"),
        ("enum E { A }\nimport os from 'os'; let n: any = null; n.x", "7:2:43"),
        ("import.meta.dirname; null.x", "7:1:27"),
    ]:
        assert guest.error(code)["traceback"][-1] == f"    at cell {place}", code


@pytest.mark.parametrize(
    ("code", "column", "hint"),
    [
        ("import x from 'left-pad'", 15, "%npm install left-pad (looked in {0}/node_modules, "),
        ("import x from '@a/b/c.js'", 15, "%npm install @a/b (looked in {0}/node_modules, "),
        ("require('left-pad')", 1, "%npm install left-pad (looked in {0}/node_modules, "),
        ("import x from 'sqlite'", 15, "did you mean node:sqlite?"),
        ("import { b } from './b'", 19, "did you mean './b.mjs'?"),
        ("await import('./b.js')", 14, "did you mean './b.mjs'?"),
        ("require('./b')", 1, "did you mean './b.mjs'?"),
        ("import './other'", 8, "{0} holds b.mjs"),
        ("import './none/b.mjs'", 8, "there is no folder {0}/none"),
        ("import x from 'npm:lodash'", 15, "name the package without npm: in front"),
        ("require('npm:left-pad')", 1, "%npm install left-pad (looked in "),
        ("import x from 'jsr:@a/b'", 15, "Node knows nothing of JSR"),
        ("import x from 'https://esm.sh/x'", 15, "Node imports files and packages only"),
    ],
)
def test_an_import_that_cannot_be_found_says_what_to_do(
    guest: Guest, tmp_path: Path, code: str, column: int, hint: str
) -> None:
    (tmp_path / "b.mjs").write_text("export const b = 1")
    lines = guest.error(code)["traceback"]
    assert lines[:3] == [f"cell 7:1:{column}", code, " " * (column - 1) + "^"]
    assert lines[-1].startswith(f"hint: {hint.format(tmp_path)}")


@pytest.mark.parametrize("name", ["gone", "@a/gone"])
def test_a_package_that_is_gone_says_what_to_do(guest: Guest, tmp_path: Path, name: str) -> None:
    package = tmp_path / "node_modules" / name
    package.mkdir(parents=True)
    (package / "package.json").write_text('{ "main": "index.js" }')
    (package / "index.js").write_text("module.exports = 1")
    assert guest.value(f"import first from '{name}'; first") == "1"
    shutil.rmtree(package)
    hint = f"hint: %npm install {name} (looked in {tmp_path}/node_modules, "
    assert guest.error(f"import second from '{name}'")["traceback"][-1].startswith(hint)
    assert guest.error(f"require('{name}')")["traceback"][-1].startswith(hint)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("document.title", "hint: this is Node, without a web page"),
        ("module.exports = {}", "hint: a cell is no module"),
        ("typeof Deno", None),
        ("Deno.version", "hint: this is Node: import fs from 'node:fs'"),
        ("$$.async()", "hint: display(…) shows values"),
        ("toString", None),
        ("__proto__x", None),
        ("_http_agent", None),
        ("fs.existsSync('/')", "hint: import fs from 'node:fs'"),
        ("child_process.execSync('ls')", "hint: import child_process from 'node:child_process'"),
        ("new sqlite.DatabaseSync(':memory:')", "hint: import sqlite from 'node:sqlite'"),
        ("_77", "hint: cell 77 has left no result, or it was muted, or is too long ago"),
        ("__filename", "hint: a cell is no file; __dirname is the working directory"),
    ],
)
def test_names_of_other_kernels_are_told(guest: Guest, code: str, hint: str | None) -> None:
    reply = guest.run(f"{code}; nothing")
    last = reply["error"]["traceback"][-1]
    assert last.startswith(hint or "    at cell ")


def test_code_made_of_text_names_the_cell_that_made_it(guest: Guest) -> None:
    for code, maker, frame in [
        ("0; new Function('throw new Error(1)')()", "7:1:4", ", <anonymous>:3:7)"),
        ("1; eval('throw new Error(2)')", "7:1:4", ", <anonymous>:1:7)"),
        ("let n: number = 1\neval('null.x')", "7:2:1", ", <anonymous>:1:6)"),
    ]:
        lines = guest.error(code)["traceback"]
        assert f"    at eval (eval at <anonymous> (cell {maker}){frame}" in lines
    guest.value("const made = new Function('throw new Error(3)')")
    lines = guest.error("\n  made()", cell="8")["traceback"]
    assert "    at eval (eval at <anonymous>, <anonymous>:3:7)" in lines, "cell 8 did not make it"


def test_what_assert_compares_has_colours_in_the_traceback_alone(guest: Guest) -> None:
    guest.colors = "all"
    error = guest.error("require('assert').deepStrictEqual({ a: 1 }, { a: 2 })")
    assert "\x1b[32m+\x1b[39m   a: 1" in "\n".join(error["traceback"])
    assert "\n+   a: 1\n-   a: 2\n" in error["message"]
    assert "\x1b" not in error["message"]
    guest.colors = "errors"
    error = guest.error("require('assert').deepStrictEqual({ a: 1 }, { a: 2 })")
    assert "\x1b[32m+" not in "\n".join(error["traceback"])
