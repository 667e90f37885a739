"""What the Node guest takes a cell for, where it could mean several things; and it runs it once."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_guest_js import Guest

_THROWN = "throw new SyntaxError('mine')"


@pytest.mark.parametrize(
    "code",
    [
        "{ n: runs++, data: JSON.parse('{') }",
        "{ n: runs++, data: await Promise.reject(new SyntaxError('mine')) }",
        "{ n: runs++ as any, data: JSON.parse('{') }",
        "// an object\n{ n: runs++, data: eval('a b') }",
        f"runs++; {_THROWN}",
        f"runs++; let n: number = 1; {_THROWN}",
        f"runs++; import os from 'os'; {_THROWN}",
        f"enum E {{ A }}; runs++; {_THROWN}",
        f"runs++; same<string>('a'); {_THROWN}",
        f"let fixed = runs++; {_THROWN}",
        "runs++; Error.stackTraceLimit = 0; throw new SyntaxError('mine')",
    ],
)
def test_a_cell_runs_once_whatever_it_throws(guest: Guest, code: str) -> None:
    guest.value("var runs = 0, fixed = 0; function same<T>(x: T): T { return x }")
    assert guest.error(code)["name"] == "SyntaxError"
    assert guest.value("runs") == "1"


def test_a_syntax_error_has_its_place_whatever_users_made_of_the_class(guest: Guest) -> None:
    guest.value("SyntaxError.prototype.name = 'Oops'; undefined")
    assert guest.error("let a = 1\n  foo bar")["traceback"][0] == "cell 7:2:7"
    assert guest.value("let n: number = 6; n") == "6"
    assert guest.value("const n = 7; n") == "7"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("same<{ a: number }>(5)", "5"),
        ("same<{\n  a: { b: string },\n  c: string | null\n}>(5)", "5"),
        ("same<{ f: () => string, g: (a, b) => void }>(5)", "5"),
        ("same<typeof x>(5)", "5"),
        ("same<\n  string\n>('x')", "'x'"),
        ("same<Array<{ a: 'b' }>>(5)", "5"),
        ("new Map<string, { a: number }>([['k', 1]]).size", "1"),
        ("[same][0]<typeof x>(5)", "5"),
        ("({ größe: same }).größe<{ a: Größe }>(5)", "5"),
        ("{ a: same<typeof x>(5) }", "{ a: 5 }"),
        ("{ let v = same<typeof x>(5); v }", "5"),
        ("// uses Wrap<T>\nsame<string>('a')", "'a'"),
        ("['a<b', same<string>('a')]", "[ 'a<b', 'a' ]"),
        ("!x ? x : {} / same<number>(5) / 2", "NaN"),
    ],
)
def test_type_arguments_of_any_kind(shared: Guest, code: str, result: str) -> None:
    shared.value("function same<T>(x: T): T { return x }; var x = 1")
    assert shared.value(code) == result


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("a < b > (c)", "true"),
        ("a<b && c>(d)", "false"),
        ("a<b || c>(d)", "true"),
        ("a<b ? c>(d) : 0", "false"),
        ("if (a<b) { c }\n[c>(d)]", "[ false ]"),
        ("for (let i=0; i<b; i++) { i }\nc>(d)", "false"),
        ("a<b\n? c\n: d", "0"),
        ("let t = 'x<b>(bold)'; t", "'x<b>(bold)'"),
        ("a ? b : c; l: {} /a<b>(d)/.source", "'a<b>(d)'"),
    ],
)
def test_comparisons_stay_comparisons(shared: Guest, code: str, result: str) -> None:
    shared.value("var a = 1, b = 2, c = 0, d = 3")
    assert shared.value(code) == result


def test_plain_javascript_loads_no_typescript(guest: Guest) -> None:
    """Which takes memory that each later checkpoint would hold."""
    code = """
    // a comment { with braces }
    const less = (a, b) => { for (let i=0; i<b; i++) { if (a<b && b>(a)) return a<b }; return b>a }
    const o = { k: 1, list: [1, 2].map((n) => n < 3 ? { n } : { n: n>(2) }) };
    const html = `<p>one<br>` + '<b>two<i>(three)'; // f<string>(x)
    [less(1, 2), o.k<2, o.k > (0)]
    """

    def reserved() -> int:
        status = Path(f"/proc/{guest.process.pid}/status").read_text()
        return int(status.split("VmSize:")[1].split()[0])  # KiB

    before = reserved()
    assert guest.value(code) == "[ true, true, true ]"
    assert reserved() - before < 1 << 20
    guest.value("let n: number = 1")
    assert reserved() - before > 1 << 20, "the parser is WebAssembly, for which V8 reserves 4 GiB"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("// a note\n{ a: 1, b: 2 }", "{ a: 1, b: 2 }"),
        ("/* a */ /* b */\n{ a: 1 }", "{ a: 1 }"),
        ("{ a: 1 } // a note;", "{ a: 1 }"),
        ("{ a: 1 } /* ; */", "{ a: 1 }"),
        ("{ a: 1 }; // a note", "1"),
        ("// a note\n{ let a = 1; a }", "1"),
    ],
)
def test_braces_are_an_object_whatever_comments_are_around(
    shared: Guest, code: str, result: str
) -> None:
    assert shared.value(code) == result


def test_what_looks_like_comments_takes_no_time(shared: Guest) -> None:
    for comment in ("/* a */ ", "// a // b\n"):
        assert shared.value(comment * 2000 + "5") == "5"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("/*{}*/ {{ a: 1 }}", "{ a: 1 }"),
        ("{{ a: '{}'.length }}", "{ a: 11000000 }"),
        ("{{ a: `{}`.length }}", "{ a: 11000000 }"),
    ],
)
def test_what_is_long_does_not_exhaust_the_stack(shared: Guest, code: str, result: str) -> None:
    assert shared.value(code.format("x" * 11_000_000)) == result


def test_a_silent_cell_leaves_the_code_of_the_last_one_alone(guest: Guest) -> None:
    guest.value("enum E { A }\n\nfunction f() {\n  null.x\n}")
    silent = guest.run("\n\nfunction g() { null.y }; g()", silent=True)["error"]
    assert silent["traceback"][:2] == ["cell silent-1:3:21", "function g() { null.y }; g()"]
    error = guest.run("foo bar", silent=True)["error"]
    assert error["traceback"][:2] == ["cell silent-2:1:5", "foo bar"]
    assert guest.error("f()", cell="8")["traceback"][:3] == ["cell 7:4:8", "  null.x", "       ^"]
    assert guest.error("g()", cell="9")["traceback"][0] == "cell silent-1:3:21"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("let n = 1\nexport default { n }", "{ n: 1 }"),
        ("const a = [1]\nexport { a }\n[0]", "[ 0 ]"),
        ("let n: number = 1\nexport { n }\n[0]", "[ 0 ]"),
        ("export default () => {}\n[0]", "[ 0 ]"),
        ("export default class {}\n[0]", "[ 0 ]"),
        ("export default function () { return 1 }\n(5)", "5"),
        ("export default (1 + 2)", "3"),
        ("export default (1 + 2) * 3;", "9"),
        ("export /* so */ default // it\n  7 // is", "7"),
    ],
)
def test_exports_stay_statements(shared: Guest, code: str, result: str) -> None:
    assert shared.value(code) == result


def test_what_is_exported_has_to_be_declared(guest: Guest) -> None:
    guest.value("const earlier = 1; globalThis.loose = undefined")
    own = (
        "export { a, b as c, f, K, d }; let a; const { b } = {}; function f() {}; class K {}; var d"
    )
    assert guest.value(f"5; export {{ earlier, loose }}; {own}") == "5"
    code = "const mine = 1\nexport { mine, earlier, missing as other, missing as another }"
    assert guest.error(code)["traceback"] == [
        "cell 7:2:25",
        code.split("\n")[1],
        " " * 24 + "^",
        "SyntaxError: Export 'missing' is not defined in module",
        "    at cell 7:2:25",
        "hint: if missing is a type, write: export type { missing }",
    ]
    assert guest.value("interface P { p: 1 }; export type { P }; 5") == "5"


def test_export_all_declares_what_the_module_exports(guest: Guest) -> None:
    guest.value(
        "require('fs').writeFileSync('m.mjs', 'export default 5; export const a = 1, b = 2, c = 3;"
        'const s = 4; export { s as "a string", s as enum, s as null, s as v }\')'
    )
    guest.value("let a = 'old'; class b {}")
    assert guest.value("export * from './m.mjs'\n[a, b, c, v]") == "[ 1, 2, 3, 4 ]"
    unnamed = "['default', 'a string', 'enum', 'null']"
    assert guest.value(f"{unnamed}.filter((name) => name in globalThis)") == "[]"
    assert guest.value("c = 9") == "9"
    guest.value("const fixed = 1; require('fs').writeFileSync('n.mjs', 'export let fixed = 2')")
    assert guest.value("export * from './n.mjs'; fixed") == "2", "as an import declares it again"
    assert guest.value("fixed") == "2"
    assert "constant" in guest.error("fixed = 3")["message"]
    assert guest.value("'import_value' in globalThis") == "false"


def test_code_that_is_too_much_for_the_parser_does_not_spoil_it(guest: Guest) -> None:
    """Its stack is WebAssembly's, which nobody unwinds."""
    guest.value("let n: number = 1")
    deep = "(" * 3000 + "1" + ")" * 3000
    error = guest.error(f"let n: number = {deep}")
    assert error["message"].startswith("Node's TypeScript parser gave up (")
    assert guest.value("let n: number = 2; n") == "2"
    assert guest.error("foo bar")["traceback"][0] == "cell 7:1:5"
    assert guest.value("enum E { A = 3 }; E.A") == "3"
