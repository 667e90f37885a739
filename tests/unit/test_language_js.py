"""The language of the Node guest: TypeScript, modules, and the results of earlier cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_guest_js import Guest


def test_results_of_earlier_cells_are_at_hand(guest: Guest) -> None:
    assert guest.run("40 + 1", cell="3")["result"]
    assert guest.run("console.log('nothing')", cell="4")["result"] is None
    assert guest.run("_ + 1", cell="5")["result"]["data"]["text/plain"] == "42"
    assert (
        guest.run("[_3, _5, Out[3], In[3], 4 in Out]", cell="6")["result"]["data"]["text/plain"]
        == "[ 41, 42, 41, '40 + 1', false ]"
    )
    guest.run("null.x", cell="7")
    assert guest.run("_error.name", cell="8")["result"]["data"]["text/plain"] == "'TypeError'"
    guest.run("0", cell="9", silent=True)
    assert (
        guest.run("[_, Out.length = 0, _3]", cell="10")["result"]["data"]["text/plain"]
        == "[ 'TypeError', 0, undefined ]"
    ), "Out can be emptied"


@pytest.mark.parametrize("code", ["import 'node:fs'", "enum E { A }; E.A", "let n: number = 1"])
def test_a_cell_that_runs_after_all_leaves_no_error(guest: Guest, code: str) -> None:
    """V8 refuses it as it stands, and then it is run as what it is."""
    guest.value(code)
    assert guest.value("_error") is None
    assert guest.call("stack")["lines"] == []
    guest.error("throw new TypeError('mine')")
    guest.value(code)
    assert guest.value("_error.message") == "'mine'"
    assert guest.call("stack")["lines"][0] == "TypeError: mine"
    guest.error("import 'node:nothing'")
    assert guest.value("_error.code") == "'ERR_UNKNOWN_BUILTIN_MODULE'"


def test_results_of_long_ago_are_forgotten(guest: Guest) -> None:
    for cell in (1, 2, 1001):
        guest.run(f"({{ from: {cell} }})", cell=str(cell))
    seen = "[typeof _1, typeof _2, 1 in In, 1 in Out, 2 in Out]"
    assert guest.value(seen) == "[ 'undefined', 'object', false, false, true ]"


_WAYS = {
    "let": "let {n} = 'let', {n}_ = 1",
    "const": "const {n} = 'const'",
    "var": "var {n} = 'var'",
    "function": "function {n}() {{}}",
    "class": "class {n} {{}}",
    "import": "import {n} from 'node:os'",
    "pattern": "const {{ a: [{n}], ...{n}_ }} = {{ a: ['pattern'] }}",
    "enum": "enum {n} {{ A }}",
    "TypeScript": "let {n}: string = 'TypeScript'",
}
_CONSTANT = ("const", "import", "pattern")
_KINDS = {"function": "function", "class": "function", "import": "object", "enum": "object"}


@pytest.mark.parametrize("before", _WAYS)
def test_names_can_be_declared_again_in_another_way(guest: Guest, before: str) -> None:
    for after, code in _WAYS.items():
        if before in _CONSTANT and after in ("let", "var", "enum", "TypeScript"):
            continue
        n = f"{before}_{after}"
        guest.value(_WAYS[before].format(n=n))
        guest.value(code.format(n=n))
        shown = guest.value(f"typeof {n} === 'string' ? {n} : typeof {n}")
        assert shown == f"'{_KINDS.get(after, after)}'", n
        if before not in _CONSTANT:
            assert guest.value(f"{n} = 5") == "5"


def test_what_was_constant_stays_constant(guest: Guest) -> None:
    guest.value("const fixed = 1")
    for code in ("console.log('begun'); let fixed = 2", "var fixed = 2", "let fixed: number = 2"):
        error = guest.error(code)
        assert error["message"] == "Identifier 'fixed' has already been declared"
        assert error["traceback"][-1].startswith("hint: fixed is a const of an earlier cell")
    assert guest.value("fixed") == "1"
    assert guest.texts() == []


def test_what_a_failed_cell_left_behind_can_be_declared_as_const(guest: Guest) -> None:
    guest.error("import left from 'not-there'")
    guest.error("const y = nope()")
    guest.error("let free = nope()")
    for code in ("let left = 1", "var y = 1", "let y: number = 1"):
        assert guest.error(code)["traceback"][-1].startswith("hint: "), code
        assert "is a const of a cell that failed" in guest.error(code)["traceback"][-1]
    names = guest.call("variables", described=10)
    assert (names["names"], names["variables"]) == ([], [])
    assert guest.value("const left = 2; function y() { return 3 }; var free = 4") is None
    assert guest.value("[left, y(), free]") == "[ 2, 3, 4 ]"


def test_a_declaration_that_is_rewritten_keeps_its_places(guest: Guest) -> None:
    guest.value("let one = 1; var two = 2; const four = 4")
    guest.value("const one = 1, sloppy = 010")
    error = guest.error("const one = 10,\n  two = 20, three = 30,\n  four = 40; null.x", cell="9")
    assert error["traceback"][0] == "cell 9:3:19"
    assert guest.value("[one, two, three, four]") == "[ 10, 20, 30, 40 ]"


def test_a_cell_that_says_the_same_is_not_run_twice(guest: Guest) -> None:
    guest.value("let runs = 0; let name = 1")
    message = "Identifier 'name' has already been declared"
    code = f"runs += 1; let name = 2; throw new SyntaxError(`{message}`)"
    assert guest.error(code)["message"] == message
    assert guest.value("runs") == "1"


@pytest.mark.parametrize("code", ["_ = 'mine'", "var _ = 'mine'", "const _ = 'mine'"])
def test_names_of_results_can_be_taken_over(guest: Guest, code: str) -> None:
    guest.value(code)
    guest.value("1 + 1")
    assert guest.value("_") == "'mine'"
    guest.value("let _9 = 'too'")
    guest.run("1", cell="9")
    assert guest.value("[_9, Out[9]]") == "[ 'too', 1 ]"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("5;", None),
        ("5; // why", None),
        ("5 /* why */; /* and\nmore */\n// end\n", None),
        ("let o = { a: 5 }\no;\n\n", None),
        ("await 5;", None),
        ("5;;", None),
        ("globalThis.gone = 1; delete gone;", None),
        ("010;", None),
        ("let t: number = 5\nt as number;", None),
        ("enum M { A = 5 }\nM.A;", None),
        ("enum M { A = 5 }\nM.A; // a note", None),
        ("enum M { A = 5 }\nM.A // see foo;", "5"),
        ("import path from 'node:path'; let t: number = 5; t; // c", None),
        ("import path from 'node:path'; path.sep;", None),
        ("5 // not this;", "5"),
        ("'a;'", "'a;'"),
        ("`//;\n;`", "'//;\\n;'"),
        ("if (true) 5;", "5"),
        ("for (let i = 0; i < 3; i++) i;", "2"),
        ("enum N { A = 5 }\nN.A", "5"),
    ],
)
def test_a_semicolon_mutes_an_expression(shared: Guest, code: str, result: str | None) -> None:
    assert shared.value(code) == result


def test_a_muted_result_is_the_last_one_but_not_kept(guest: Guest) -> None:
    shows = "({ [Symbol.for('Jupyter.display')]() { console.log('shown'); return {} } })"
    assert guest.value(f"{shows};") is None
    assert guest.output() == [], "it is not even asked how it would look"
    guest.run("5;", cell="3")
    assert guest.value("[_, 3 in Out]") == "[ 5, false ]"


def test_typescript(guest: Guest) -> None:
    assert guest.value("const n: number = 5; n") == "5"
    assert guest.value("interface A { a: string }") is None
    assert guest.value("type T = string; let t: T = 'x'; t as string") == "'x'"
    assert guest.value("enum E { A = 3, B }; E.B") == "4"
    error = guest.error("enum F {\n  A = 3,\n  B\n}\nlet v: any = null;\n\n  v.w")
    assert error["traceback"][-1] == "    at cell 7:7:5"
    code = (
        "class P {\n  constructor(private x: any) {}\n  m() { return this.x.y }\n}\nnew P(null).m()"
    )
    error = guest.error(code)
    assert error["traceback"][-2] == "    at P.m (cell 7:3:23)"
    assert error["traceback"][-1] == "    at cell 7:5:13"
    assert guest.output() == []  # no ExperimentalWarning


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("interface A { b: string }\ntype B = A | null", None),
        ("declare const outside: number; declare function f(): void", None),
        ("declare global { interface Window { x: number } }", None),
        ("import type { Stats } from 'node:fs'", None),
        ("import { type Stats, readFileSync } from 'node:fs'; typeof readFileSync", "'function'"),
        ("const c = { a: 1 } satisfies object; c", "{ a: 1 }"),
        ("const id = <T,>(x: T): T => x; id<number>(5)", "5"),
        ("const id2 = <T extends object>(x: T) => x; id2<{ a: number }>({ a: 1 })", "{ a: 1 }"),
        ("let m = new Map<string, number[]>([['a', [1]]]); m.get('a')!", "[ 1 ]"),
        ("abstract class S { abstract area(): number; static n = 1 }; S.n", "1"),
        ("class D { constructor(public readonly x: number) {} }; new D(4).x", "4"),
        ("enum Color { Red, Green = 'g' }; Color.Green", "'g'"),
        ("const enum K { A = 1 << 3 }; K.A", "8"),
        (
            "namespace N { export const a = 1; export namespace M { export const b = 2 } }; N.M.b",
            "2",
        ),
        ("import fs = require('fs'); typeof fs.stat", "'function'"),
        ("const v = <any>5; (v as number).toFixed(1)", "'5.0'"),
        ("const w = <const>['a']; w", "[ 'a' ]"),
        ("function f(this: void, a?: number, ...b: string[]): asserts a {}; f.length", "1"),
        ("function over(a: string): void; function over(a: any) { return a }; over(1)", "1"),
        ("{ a: 1 as number, b: 'x' }", "{ a: 1, b: 'x' }"),
        ("using res = { [Symbol.dispose]() {} } as Disposable", None),
        ("a: for (const x of [1] as const) { break a }", None),
    ],
)
def test_typescript_constructs(shared: Guest, code: str, result: str | None) -> None:
    assert shared.value(code) == result
    assert shared.value(f"\n{code}") == result, "again, in a later cell"


def test_what_typescript_declares_is_there_later(guest: Guest) -> None:
    guest.value("enum E { A = 3 }\nnamespace N { export const b = 4 }")
    guest.value("export const x: number = 5, y = 6; export function f(): number { return 7 }")
    guest.value("export default class C<T> { m(): T | number { return 8 } }")
    assert guest.value("[E.A, N.b, x, y, f(), new C().m()]") == "[ 3, 4, 5, 6, 7, 8 ]"


def test_an_enum_that_is_declared_again_is_a_new_one(guest: Guest) -> None:
    guest.value("enum E { A, B }; namespace N { export const a = 1 }")
    guest.value(
        "enum E { C }\nenum E { D = 5 }\nnamespace N { export const b = 2 }\n"
        "namespace N { export const c = 3 }"
    )
    assert guest.value("[E, N]") == "[ { '0': 'C', '5': 'D', C: 0, D: 5 }, { b: 2, c: 3 } ]"
    guest.value(
        "class C {}; namespace C { export const d = 4 }; function f() {}\n"
        "namespace f { export enum Inner { X = 6 } }"
    )
    assert guest.value("[typeof new C(), C.d, f(), f.Inner.X]") == "[ 'object', 4, undefined, 6 ]"
    place = guest.error("enum E { C }; (null as any).x")["traceback"][-1]
    assert place == "    at cell 7:1:29"


def test_type_arguments_are_no_comparisons(guest: Guest) -> None:
    assert guest.value("function same<T>(x: T): T { return x }") is None
    assert guest.value("same<string>('a') + same<Array<string>>(['b'])[0]") == "'ab'"
    assert guest.value("var a = 1, b = 2, c = 0; [a<b > c, a < b > (c)]") == "[ true, true ]"
    assert guest.value("var n = 2, s = 0; for (let i=0; i<n; i++) s += i; s>(0)") == "true"


def test_static_imports(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "mine.mjs").write_text("export default 5; export const a = 1, b = 2")
    (tmp_path / "data.json").write_text('{"k": 1}')
    assert guest.value("import d, {a, b as c} from './mine.mjs'; [d, a, c]") == "[ 5, 1, 2 ]"
    assert guest.value("import * as\n  path\nfrom 'node:path'\npath.sep") == "'/'"
    assert guest.value("import d, * as all from './mine.mjs'; d + all.b") == "7"
    assert guest.value("import './mine.mjs'") is None
    assert guest.value("import data from './data.json' with { type: 'json' }\ndata.k") == "1"
    assert guest.value("import os from 'os'; import os2 from 'node:os'; os === os2") == "true"
    assert (
        guest.value("import type { X } from 'x'; import os from 'os'; const n: any = 5; n") == "5"
    )
    error = guest.error("import {\n  nope\n} from 'node:fs'")
    assert error["name"] == "SyntaxError"
    assert "does not provide an export named 'nope'" in error["message"]
    assert guest.error("import fs from 'fs'\n\n  fs.nope()")["traceback"][-1] == "    at cell 7:3:6"
    assert guest.output() == []


def test_imported_names_must_be_exported(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "mine.mjs").write_text("export default 5; export const a = 1, b = 2")
    assert guest.value("import { default as z } from './mine.mjs'; z") == "5"
    error = guest.error("\n import { c } from './mine.mjs'")
    assert error["traceback"][-1] == "    at cell 7:2:2"
    assert (
        guest.value(
            "require('fs').writeFileSync('new.mjs', 'export let n = 6');"
            "import { n } from './new.mjs'; n"
        )
        == "6"
    )


FILES = """
var fs = require('node:fs'), runs = 0
fs.writeFileSync('a.mjs', `import { b } from './b.mjs'; import c from './c.cjs'
  runs += 1; export const a = b + c.x`)
fs.writeFileSync('b.mjs', 'export const b = 1')
fs.writeFileSync('c.cjs', 'exports.x = require("./d.cjs") + 10')
fs.writeFileSync('d.cjs', 'module.exports = 100')
fs.writeFileSync('state.mjs', 'export const state = {}')
"""
USE = "import { a } from './a.mjs'; import { state } from './state.mjs'; "


def test_a_changed_file_is_imported_afresh(guest: Guest) -> None:
    """And what imports it; all else stays loaded as it was."""
    guest.value(FILES)
    assert guest.value(f"{USE} state.kept = true; [a, runs]") == "[ 111, 1 ]"
    assert guest.value(f"{USE} [a, runs, state.kept]") == "[ 111, 1, true ]"
    guest.value("fs.writeFileSync('b.mjs', 'export const b = 2')")
    assert guest.value(f"{USE} [a, runs, state.kept]") == "[ 112, 2, true ]"
    guest.value("fs.writeFileSync('d.cjs', 'module.exports = 200')")
    assert guest.value("require('./c.cjs').x") == "210"
    assert guest.value(f"{USE} [a, runs, state.kept]") == "[ 212, 3, true ]"
    guest.value("fs.rmSync('b.mjs')")
    assert "b.mjs" in guest.error(USE)["message"]
    assert (
        guest.value("fs.writeFileSync('b.mjs', 'export let b = 3'); (await import('./a.mjs')).a")
        == "213"
    )
    guest.value(
        "fs.writeFileSync('own.mjs', 'export let n = 1'); var own = await import('./own.mjs')"
    )
    assert guest.value("own === await import('./own.mjs')") == "true", (
        "written before it was loaded"
    )


def test_a_cell_can_import_what_it_has_just_changed(guest: Guest) -> None:
    guest.value(FILES)
    for n in (2, 3):
        guest.value(f"fs.writeFileSync('b.mjs', 'export const b = {n}')\n{USE} [a, runs]")
    assert guest.value("[a, runs]") == "[ 113, 2 ]"
    for n in (4, 5):
        write = f"fs.writeFileSync('d.cjs', 'module.exports = {n}')"
        assert guest.value(f"{write}; require('./c.cjs').x") == str(10 + n)
        assert guest.value(f"{write}; (await import('./b.mjs')).b") == "3"
    assert guest.value("require('./c.cjs') === require('./c.cjs')") == "true"


def test_a_package_that_was_replaced_is_loaded_afresh(guest: Guest, tmp_path: Path) -> None:
    package = tmp_path / "node_modules" / "@some" / "thing"
    package.mkdir(parents=True)
    for version in ("1.0.0", "2.0.0"):
        (package / "package.json").write_text(f'{{"version": "{version}", "main": "index.js"}}')
        (package / "index.js").write_text(f"module.exports = '{version}'")
        assert guest.value("require('@some/thing')") == f"'{version}'"
        assert guest.value("import thing from '@some/thing'; thing") == f"'{version}'"


def test_typescript_files_can_be_imported(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "e.ts").write_text(
        "export enum E { A = 4 }\n\nexport interface I {}\n"
        "export class P {\n  constructor(private x: any) {}\n  f(): void { this.x.y }\n}\n"
    )
    (tmp_path / "e.cts").write_text("enum E { A = 5 }\nmodule.exports = E.A as number")
    (tmp_path / "bad.ts").write_text("export const x: number = ;\n")
    guest.colors = "none"
    assert guest.value("import { E, P, type I } from './e.ts'; E.A") == "4"
    assert guest.value("require('./e.cts')") == "5"
    error = guest.error("new P(null).f()")
    assert error["traceback"][:2] == [f"file://{tmp_path}/e.ts:6:22", "  f(): void { this.x.y }"]
    assert error["traceback"][-2].endswith("/e.ts:6:22)")
    hint = guest.error("import { I } from './e.ts'")["traceback"][-1]
    assert hint == "hint: if I is a type, write: import type { I } from …"
    assert f"{tmp_path}/bad.ts:1" in guest.error("import './bad.ts'")["traceback"]
    assert guest.output() == [], "no warnings"


def test_json_and_wasm_can_be_imported(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"k": 1}')
    wasm = "AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags="
    guest.value(f"require('node:fs').writeFileSync('a.wasm', Buffer.from('{wasm}', 'base64'))")
    assert guest.value("import { add } from './a.wasm'; add(2, 3)") == "5"
    assert guest.value("import j from './a.json' with { type: 'json' }; j.k") == "1"
    assert guest.value("require('./a.json').k") == "1"
    (tmp_path / "a.json").write_text('{"k": 2}')
    assert guest.value("import j from './a.json' with { type: 'json' }; j.k") == "2"
    assert guest.value("require('./a.json').k") == "2"
    assert "with { type: 'json' }" in guest.error("import j from './a.json'")["traceback"][-1]
    assert guest.output() == [], "no warnings"


def test_import_meta(guest: Guest, tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    assert guest.value("import.meta.url") == f"'{url}/cell.js'"
    assert guest.value("import.meta.dirname") == f"'{tmp_path}'"
    assert guest.value("import.meta.filename") == f"'{tmp_path}/cell.js'"
    assert guest.value("import.meta.resolve('./x.mjs')") == f"'{url}/x.mjs'"
    assert guest.value("const where = (): string => import.meta.resolve('node:fs'); where()") == (
        "'node:fs'"
    )
    (tmp_path / "below").mkdir()
    guest.value("process.chdir('below')")
    assert guest.value("import.meta.dirname") == f"'{tmp_path}/below'"


def test_exports_declare(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "mine.mjs").write_text("export default 5; export const a = 1, b = 2")
    guest.value("const one = 1; export { one, one as uno }; export async function f() { return 2 }")
    assert guest.value("[one, await f()]") == "[ 1, 2 ]"
    assert guest.value("export { one as two, f }") is None, "declared in another cell"
    assert guest.value("export default { one }") == "{ one: 1 }"
    assert guest.value("export default () => 3") == "[Function (anonymous)]"
    assert guest.value("export default class Named {}; Named.name") == "'Named'"
    assert guest.value("export { a as first, default } from './mine.mjs'; first") == "1"
    assert guest.value("export * as all from './mine.mjs'; all.b") == "2"
    assert guest.value("export * from './mine.mjs'\n[a, b]") == "[ 1, 2 ]"


def test_imports_in_strings_and_comments_stay(guest: Guest) -> None:
    code = "import fs from 'fs'\nconst s = `\nimport x from 'y'\n`\n/*\nimport z from 'z'\n*/\ns"
    assert guest.value(code) == "\"\\nimport x from 'y'\\n\""


def test_dynamic_import_and_require_follow_the_directory(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.mjs").write_text("export const here = import.meta.filename")
    (tmp_path / "sub" / "c.js").write_text("exports.v = 1")
    assert guest.value("(await import('./sub/m.mjs')).here") == f"'{tmp_path}/sub/m.mjs'"
    assert guest.value("require('./sub/c.js').v") == "1"
    guest.call("configure", cwd=str(tmp_path / "sub"))
    assert guest.value("[process.cwd() === __dirname, require('./c.js').v]") == "[ true, 1 ]"
    assert guest.value("(await eval(\"import('./m.mjs')\")).here") == f"'{tmp_path}/sub/m.mjs'"
    assert guest.error("await import('./nope.mjs')")["code"] == "ERR_MODULE_NOT_FOUND"
    assert guest.call("configure", cwd="/nowhere")["error"]["code"] == "ENOENT"
    assert guest.output() == []
