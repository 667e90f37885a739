"""Completion and inspection in the Node guest: what can stand at the cursor, what it is about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_guest_js import Guest, find_node

_SCOPE = """
let thing = { alpha: 1, beta: { gamma(a, b) {} }, 'odd key': 1, _last: 2,
  get bad() { console.log('RAN'); return {} }, list: [{ q: 1 }] };
const proxy = new Proxy({}, { get() { console.log('RAN') }, ownKeys() { console.log('RAN') } });
const heir = Object.create(proxy); heir.own = 1;
var text = 'abc';
function area(w, h = 2) { return w * h }
class Shape { constructor(a) {} static make() {} draw(where) {} get deep() { return { er: 1 } } }
const bytes = new Uint8Array([7, 8]), pattern = /x/g;
const fail = Object.assign(new TypeError('no'), { stack: 'TypeError: no' });
const keys = { "don't": 1, 'say "hi"': 2, 'a${b': 3 };
const shape = new Shape(); const big = new Float64Array(1e7);
const made = { get name() { return 'x' } }, which = 'name', buffer = Buffer.from('hi');
const kept = Promise.resolve(7), pending = new Promise(() => {}), pairs = new Map([['a', [1, 2]]]);
const address = new URL('http://h/'); const long = 'x'.repeat(3e6);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    files = {
        "data.csv": "",
        "it's.txt": "",
        "my file.txt": "",
        "own.mjs": "",
        "sub/inner.js": "",
        "node_modules/left-pad/package.json": '{"exports": {".": "./a.js", "./sub": "./s.js"}}',
        "node_modules/plain/package.json": "{}",
        "node_modules/plain/lib.js": "",
        "node_modules/@scope/one/package.json": "{}",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Guest]:
    """One guest for tests that only look."""
    guest = Guest(find_node(), folder)
    guest.value(_SCOPE)
    guest.run("interface Kept { a: number }", cell="99")
    yield guest
    assert guest.output() == []  # nothing of the user's was run
    guest.close()


def _complete(guest: Guest, code: str) -> dict[str, tuple[str, str]]:
    """What the guest offers at the end of `code`: name -> (type, signature)."""
    units = len(code.encode("utf-16-le")) // 2
    reply = guest.call("complete", code=code, cursor=units)
    assert reply["end"] == units, reply
    rows = zip(reply["types"], reply["signatures"], strict=True)
    return dict(zip(reply["matches"], rows, strict=True))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        # properties, through prototypes, optional chains, keys and indices
        ("thing.al", "alpha"),
        ("thing?.beta?.ga", "gamma"),
        ("thing!.al", "alpha"),
        ("thing.beta\n  // why\n  .ga", "gamma"),
        ("thing['beta'].ga", "gamma"),
        ("thing.list[0].", "q"),
        ("thing['o", "odd key"),
        ('thing?.["o', "odd key"),
        ("thing.alpha.toF", "toFixed"),
        ("heir.o", "own"),
        ("shape.dr", "draw"),
        ("big.subar", "subarray"),
        ("this.process.ar", "argv"),
        ("`${thing.al", "alpha"),
        ("1 + /[/.]/.te", "test"),
        ("a ? thing.al", "alpha"),
        ("变量 = '😀'; thing.al", "alpha"),
        # literals
        ("address.host.at", "at"),
        ("'abc'.startsW", "startsWith"),
        ("`a`.at", "at"),
        ("[1, 2].fl", "flatMap"),
        ("/x/.te", "test"),
        ("const x = 1\nif (x) /a/.te", "test"),
        ("function f() {}\n/`/.te", "test"),
        ("if (/`/.test(x)) /`/.exec(x); thing.al", "alpha"),
        ("let o1 = { a: 1 } / 2; thing.al", "alpha"),
        ("(x) / 2; '/'; thing.al", "alpha"),
        ("x.if(y) / 2; '/'; thing.al", "alpha"),
        ("import.meta.fi", "filename"),
        # names
        ("thi", "thing"),
        ("aw", "await"),
        ("inter", "interface"),
        ("proc", "process"),
        # what this very cell declares
        ("const made = 1; ma", "made"),
        ("const { readFile: rf, x: [y1] } = z; y", "y1"),
        ("function f(aa, { bb, c: cc }, ...dd) { c", "cc"),
        ("items.map((item, idx) => id", "idx"),
        ("one(x => { for (const it of x) i", "it"),
        ("import def, { a as renamed } from 'm'; ren", "renamed"),
        ("const m = new Map(); m.ge", "get"),
        ("const s: string = 'x'\ns.startsW", "startsWith"),
        ("let o = { k1: 1, k2() {}, k3 }; o.k", "k3"),
        ("const t = text; t.startsW", "startsWith"),
        ("import fs from 'fs'\nfs.readFileS", "readFileSync"),
        ("import * as p from 'node:path'; p.joi", "join"),
        ("const fs = require('node:fs'); fs.readFileS", "readFileSync"),
        ("const z = require('zlib'); z.gz", "gzipSync"),  # nobody has loaded it
        ("require('fs').readFileS", "readFileSync"),
        ("require('node:fs').promises.readF", "readFile"),
        ("(await import('zlib')).gz", "gzipSync"),
        ("import fs from 'fs'; fs.promises.readF", "readFile"),
        ("const { promises: p } = await import('fs'); p.readF", "readFile"),
        ("const o = { 'odd key': 1 }; o['o", "odd key"),
        ("const a = thing.beta; const b = a; b.ga", "gamma"),
        ("const { beta } = thing; beta.ga", "gamma"),
        ("for (const it of thing.list) it.", "q"),
        ("thing.list.map(row => row.", "q"),
        ("thing.list.filter(async ({ q }, i) => q.toF", "toFixed"),
        ("thing.list.toSorted((a, b) => a.q - b.", "q"),
        # declared again, for what is there already
        ("class Shape {}\nShape.ma", "make"),
        ("function area() {}\narea.na", "name"),
        ("let thing\nthing.al", "alpha"),
        # made on the spot
        ("new Date().getF", "getFullYear"),
        ("new Shape(1).dr", "draw"),
        ("(thing).al", "alpha"),
        ("`a${1}`.at", "at"),
        # the class that the cursor is in
        ("class A { #y = 2; m() { this.#", "#y"),
        ("class A { x = 1\n y = () => { return {} }\n m() { this.", "y"),
        ("class A { constructor() { this.foo = 1; [].map(() => this.", "foo"),
        ("class A extends Shape { m() { this.dr", "draw"),
        # as keys and paths are written in their string
        ("keys['don", "don\\'t"),
        ("keys['don\\'", "don\\'t"),
        ('keys["don', "don't"),
        ('keys["say', 'say \\"hi\\"'),
        ("keys[`a", "a\\${b"),
        ("fs.readFileSync('it", "it\\'s.txt"),
        ("fs.readFileSync('my f", "my file.txt"),
        # modules and files
        ("import x from 'no", "node:fs"),
        ("import 'fs/", "fs/promises"),
        ("require('left", "left-pad"),
        ("import('left-pad/", "sub"),
        ("import x from 'plain/", "lib.js"),
        ("import '@sc", "@scope/one"),
        ("import './o", "own.mjs"),
        ("export * from './su", "sub/"),
        ("fs.readFileSync('da", "data.csv"),
        ("open(`sub/", "inner.js"),
    ],
)
def test_complete(shared: Guest, code: str, name: str) -> None:
    assert name in _complete(shared, code)


@pytest.mark.parametrize(
    "code",
    [
        "thing.bad.", "shape.deep.", "proxy.", "nothing.", "area().", "area(1)[0].", "super.", "1.",
        "// thi", "/* thi", "'thi", "`thi", "/thi", "let thi", "class Sha",
        "import './da", "x.#pri", "x.#", "'https://da", "import('fs').", "if (thing).", "x(thing).",
    ],
)  # fmt: skip
def test_nothing_to_complete(shared: Guest, code: str) -> None:
    assert _complete(shared, code) == {}


@pytest.mark.parametrize(
    ("code", "first"),
    [
        ("let t: stri", "string"),
        ("type Foo = 1; let z: Fo", "Foo"),
        ("let z: Kep", "Kept"),
        ("function f(a: numb", "number"),
        ("function f(a?: numb", "number"),
        ("function f(a): vo", "void"),
        ("const g = (a: boo", "boolean"),
        ("x as unk", "unknown"),
        ("x satisfies Par", "Parameters"),
        ("new Map<stri", "string"),
        ("class A extends Kep", "Kept"),
    ],
)
def test_types_come_first_where_one_is_wanted(shared: Guest, code: str, first: str) -> None:
    assert next(iter(_complete(shared, code))) == first


@pytest.mark.parametrize("code", ["({ a: boo", "x ? y : boo", "a < boo", "case f(x): boo"])
def test_types_are_not_offered_where_a_value_stands(shared: Guest, code: str) -> None:
    assert "boolean" not in _complete(shared, code)


def test_completion_says_what_it_offers(shared: Guest) -> None:
    assert _complete(shared, "are")["area"] == ("function", "(w, h = 2)")
    assert _complete(shared, "globalThis.tex")["text"] == ("property", "")
    assert _complete(shared, "shape.constr")["constructor"] == ("class", "(a)")
    assert _complete(shared, "thing.beta.")["gamma"] == ("function", "(a, b)")
    assert _complete(shared, "awai")["await"] == ("keyword", "")
    assert _complete(shared, "import 'node:f")["node:fs"] == ("module", "")


def test_completion_is_sorted(shared: Guest) -> None:
    names = list(_complete(shared, "thing."))
    own = ["alpha", "bad", "beta", "list"]
    assert names[:4] == own
    assert names.index("hasOwnProperty") < names.index("_last") < names.index("__proto__")
    names = list(_complete(shared, "const thin = 1; th"))
    assert names == ["thin", "thing", "this", "throw"]


def test_completion_replaces_what_was_typed(shared: Guest) -> None:
    for code, start in [("thing.al", 6), ("thing['o", 7), ("x('sub/in", 7), ("'😀'; thi", 6)]:
        units = len(code.encode("utf-16-le")) // 2
        assert shared.call("complete", code=code, cursor=units)["start"] == start
    assert shared.call("complete", code="thing.al + 1", cursor=8)["matches"] == ["alpha"]


def test_completion_beside_a_running_cell(tmp_path: Path) -> None:
    guest = Guest(find_node(), tmp_path)
    guest.value("let known = { one: 1 }")
    _complete(guest, "kno")
    cell = guest.start("for (;;);")
    time.sleep(0.05)
    assert "one" in _complete(guest, "known.")
    assert guest.call("inspect", code="known", cursor=3, detail=0)["found"]
    guest.interrupt()
    guest.reply(cell)
    # While the main thread waits in the kernel, what every Node has is known all the same.
    cell = guest.start("require('child_process').execSync('sleep 2'); undefined")
    time.sleep(0.5)
    assert "max" in _complete(guest, "Math.ma")
    assert set(_complete(guest, "kno")) == {"known"}
    assert "local" in _complete(guest, "let local = 1; lo")
    assert "gzipSync" in _complete(guest, "import z from 'zlib'; z.gz")
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        assert _complete(guest, "known.") == {}
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.15, times
    guest.reply(cell)
    assert "one" in _complete(guest, "known.")
    guest.close()


def test_lookups_survive_what_user_code_does_to_builtins(tmp_path: Path) -> None:
    guest = Guest(find_node(), tmp_path)
    guest.value(
        "let thing = { alpha: 1 }; const bad = () => { console.log('RAN'); throw 1 };"
        "for (const [o, names] of [[Object, ['keys', 'getOwnPropertyNames', 'getPrototypeOf']],"
        "  [Map.prototype, ['get', 'forEach']], [JSON, ['parse', 'stringify']],"
        "  [String.prototype, ['startsWith', 'slice']], [RegExp.prototype, ['exec', 'test']]])"
        "  for (const name of names) o[name] = bad; undefined"
    )
    assert "alpha" in _complete(guest, "thing.")
    assert "thing" in _complete(guest, "thi")
    assert guest.call("inspect", code="thing", cursor=3, detail=0)["found"]
    guest.close()


@pytest.mark.parametrize(
    ("marked", "detail", "text"),
    [
        ("ar|ea(1, 2)", 0, "area: function\nfunction area(w, h = 2)"),
        ("area(1, |2)", 0, "area: function\nfunction area(w, h = 2)"),
        ("area(thing.alpha|)", 0, "thing.alpha: number\n1"),
        ("area(nothing|)", 0, "area: function\nfunction area(w, h = 2)"),
        ("area('a|", 0, "area: function\nfunction area(w, h = 2)"),
        ("area(`${[1, |2]}`", 0, None),
        ("area(1, { h: [|", 0, "area: function\nfunction area(w, h = 2)"),
        ("thing.list.map(() => { |", 0, None),
        ("thing['beta']|", 0, "thing['beta']: Object\nObject { gamma: function }"),
        ("thing['beta'].gamma|", 0, "thing['beta'].gamma: function\nfunction gamma(a, b)"),
        ("const { alpha, be|ta } = thing", 0, "thing.beta: Object\nObject { gamma: function }"),
        ("shape|", 0, "shape: Shape\nShape {}"),
        ("bytes|", 0, "bytes: Uint8Array\nUint8Array(2) [ 7, 8 ]"),
        ("fail|", 0, "fail: TypeError\nTypeError: no"),
        ("pattern|", 0, "pattern: RegExp\n/x/g"),
        ("shape.dr|aw()", 0, "shape.draw: function\nfunction draw(where)"),
        ("thing.be|ta.gamma", 0, "thing.beta: Object\nObject { gamma: function }"),
        ("Shape|", 0, "Shape: class\nclass Shape { constructor(a) }"),
        ("text|", 0, 'text: string\n"abc"'),
        ("'😀' + text|", 0, 'text: string\n"abc"'),
        ("thing.list|", 0, "thing.list: Array\nArray(1) [ Object ]"),
        ("|", 0, None),
        ("thing.bad|", 0, "thing.bad: accessor\nget bad() { console.log('RAN'); return {} }"),
        ("big.length|", 0, "big.length: number\n10000000\n\nThe length of the array."),
        ("made.name|", 0, "made.name: accessor\nget name() { return 'x' }"),
        ("made[which]|", 0, "made[which]: accessor\nget name() { return 'x' }"),
        ("buffer|", 0, "buffer: Buffer\n<Buffer 68 69>"),
        ("kept|", 0, "kept: Promise\nPromise { 7 }"),
        ("pending|", 0, "pending: Promise\nPromise { <pending> }"),
        ("pairs|", 0, 'pairs: Map\nMap(1) { "a" => Array(2) }'),
        ("long|", 0, f'long: string\n"{"x" * 200}"... (3000000 characters)'),
        ("await|", 0, None),
    ],
)
def test_inspect(shared: Guest, marked: str, detail: int, text: str | None) -> None:
    before, _, after = marked.partition("|")
    cursor = len(before.encode("utf-16-le")) // 2
    reply = shared.call("inspect", code=before + after, cursor=cursor, detail=detail)
    assert reply["data"].get("text/plain") == text
    assert reply["found"] == (text is not None)


_ACCESSORS = """
var ran = 0; const o = { get own() { ran++; return {} }, get loop() { for (;;); }, set only(x) {} };
Object.defineProperty(globalThis, 'lazy', { get() { ran++; return {} } });
const list = { get splice() { ran++; return () => {} }, get length() { ran++; return 1 } };
const error = Object.defineProperty(new Error('no'), 'stack', { get() { ran++ } });
class Tagged { get [Symbol.toStringTag]() { ran++ } static get name() { ran++ } }
const tagged = new Tagged(), held = { error, list };
Object.defineProperty(Map.prototype, 'size', { get() { ran++; return {} } });
Error.prepareStackTrace = () => { ran++ }; var late = new Error('late'); undefined
"""


def test_lookups_run_no_accessor_of_the_users(tmp_path: Path) -> None:
    guest = Guest(find_node(), tmp_path)
    guest.value(_ACCESSORS)
    ran = int(guest.value("ran"))
    for code in ("o.own.", "o.loop.", "lazy.", "new Map().size.", "process.stdin.", "late.stack."):
        assert _complete(guest, code) == {}
    for code, text in [
        ("o.own", "accessor\nget own() { ran++; return {} }"),
        ("o.loop", "accessor\nget loop() { for (;;); }"),
        ("o.only", "accessor\nset only(x) {}"),
        ("lazy", "accessor\nget() { ran++; return {} }"),
        ("list", "Object\nObject { splice: accessor, length: accessor }"),
        ("error", "Error\nError: no"),
        ("late", "Error\nError: late"),
        ("held", "Object\nObject { error: Error, list: Object }"),
    ]:
        reply = guest.call("inspect", code=code, cursor=len(code), detail=0)
        assert reply["data"]["text/plain"] == f"{code}: {text}"
    for code in ("tagged", "/x/.flags", "process.stdin", "Tagged.name", "Map.prototype.size"):
        guest.call("inspect", code=code, cursor=len(code), detail=0)
    assert int(guest.value("ran")) == ran + 1  # to evaluate a cell runs one of them
    guest.close()


@pytest.mark.alone
def test_a_getter_that_never_ends_does_not_hold_a_lookup_up(tmp_path: Path) -> None:
    guest = Guest(find_node(), tmp_path)
    guest.value("let evil = { get loop() { for (;;); } }; undefined")
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert _complete(guest, "evil.loop.") == {}
        assert guest.call("inspect", code="evil.loop", cursor=9, detail=0)["found"]
        times.append(time.perf_counter() - began)
    assert min(times) < 0.05, times
    cell = guest.start("const end = Date.now() + 1500; while (Date.now() < end); 'whole'")
    time.sleep(0.1)
    assert _complete(guest, "evil.loop.") == {}
    reply = guest.reply(cell)
    assert reply["status"] == "ok", reply
    assert reply["result"]["data"]["text/plain"] == "'whole'"
    assert "loop" in _complete(guest, "evil.")
    guest.close()
