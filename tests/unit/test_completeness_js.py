"""Whether code is complete, by the parsers in the Node guest, and how it goes on."""

from __future__ import annotations

import pytest
from test_guest_js import Guest


@pytest.mark.parametrize(
    "code",
    [
        "", "  ", "\n\n", "1 + 1", "a\n", "await x", "// why", "/** why */", "/re/", "`a\nb`",
        "f(a, b)\n  .then(x)", "if (x) {\n    y\n  }", "try { } catch (e) { }", "{ a: 1 }", "x!",
        "import x from 'y'", "import 'x'", "import.meta", "export const x = 1", "#!shebang",
        "function f() {\n  return 1\n}", "let x: number = 1", "enum A { B }", "declare const x",
        "interface A { x: number }",
        "const f = <T,>(x: T) => x", "declare function f(a: number)", "'a'",
        "function f(a: number) { return a < 1 }", "x = a < b || c > d", "let x = y as Array<Z>",
    ],
)  # fmt: skip
def test_complete(shared: Guest, code: str) -> None:
    assert shared.call("is_complete", code=code)["status"] == "complete"


@pytest.mark.parametrize(
    ("code", "indent"),
    [
        # brackets
        ("if (x) {", "  "),
        ("  foo(", "    "),
        ("x = (1", "  "),
        ("[1, 2,", "  "),
        ("({ a: 1,", "    "),
        ("const x = { a: 1,", "  "),
        ("foo(1,", "  "),
        ("foo(1, [2], {", "  "),
        ("foo(1, () => g(2),", "  "),
        ("  foo(1,\n    2,", "    "),
        ("foo(1) + (2,", "  "),
        ("[1,\n 2", " "),
        ("class A {\n  m() {", "    "),
        ("class A {\n    a = 1\n    m() {", "        "),
        ("class A {\n\tm() {", "\t\t"),
        ("if (x) {\n    y", "    "),
        ("if (x) { // why", "  "),
        ("x = {\n  a: 1,\n  b: [\n    1,", "    "),
        ("f(function () {\n  g();", "  "),
        ("switch (x) {\n  case 1:", "    "),
        ("`a${", ""),
        ("let {a} ", ""),
        # statements that wait for one
        ("if (x)", "  "),
        ("if (a) // why", "  "),
        ("for (const a of b)", "  "),
        ("while (f(1))", "  "),
        ("if (a) { b } else", "  "),
        ("do", "  "),
        ("do { x }", ""),
        ("try { }", ""),
        ("x => {", "  "),
        ("async () =>", "  "),
        ("async function", ""),
        ("import { a", "  "),
        ("import {a} from", ""),
        ("export default", ""),
        ("class A extends B", ""),
        # operators
        ("a +", ""),
        ("a + // why", ""),
        ("a ? b :", ""),
        ("a.", ""),
        ("new", ""),
        ("var a,", ""),
        ("const x =", ""),
        # what goes on over lines
        ("`abc", ""),
        ("  `abc", ""),
        ("/* abc", ""),
        ("/**\n * abc", " "),
        ("'abc\\", ""),
        # TypeScript
        ("interface A {", "  "),
        ("type A =", ""),
        ("let x: number =", ""),
        ("let x: Array<number", ""),
        ("function f(a: number)", ""),
        ("function f(a: number): void", ""),
        ("namespace A {", "  "),
        ("a satisfies", ""),
    ],
)
def test_incomplete(shared: Guest, code: str, indent: str) -> None:
    reply = shared.call("is_complete", code=code)
    assert (reply["status"], reply["indent"]) == ("incomplete", indent)


@pytest.mark.parametrize(
    "code",
    [
        "}", "}\n{", "},{", "})\n({",
        "'abc", '"abc', "const +", "return 1", "a b", "1 2", "f(]", "if (x) }", "else", "/re",
        "let let = 1", "const x;", "let a; let a;", "5 = 3", "let x: number +* 3",
        "<div>", "<div></div>", "const a = <b>x</b>", "f(<br/>)",
    ],
)  # fmt: skip
def test_invalid(shared: Guest, code: str) -> None:
    assert shared.call("is_complete", code=code)["status"] == "invalid"
