"""What the Node guest knows of functions: what Node documents, what the user typed before them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_guest_js import Guest, find_node


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import { | } from 'fs'", "readFileSync"),
        ('import { readFileS| } from "node:fs"', "readFileSync"),
        ("import { statSync as s, readFileS| } from 'fs';\n0", "readFileSync"),
        ("import fs, { statSync, readFileS|, existsSync } from 'fs'", "readFileSync"),
        ("export { readFileS| } from 'fs'", "readFileSync"),
        ("const { statSync, readFileS| } = require('fs')", "readFileSync"),
        ("const { statSync: s, readFileS| } = fs", "readFileSync"),
        ("const made = fs; const { readFileS| } = made", "readFileSync"),
        ("import { gzipS| } from 'zlib'", "gzipSync"),  # nobody has loaded it
    ],
)
def test_names_to_import_are_exports_of_the_module(documented: Guest, code: str, name: str) -> None:
    cursor = code.index("|")
    reply = documented.call("complete", code=code.replace("|", ""), cursor=cursor)
    assert name in reply["matches"]
    assert "Math" not in reply["matches"]
    assert reply["start"] <= cursor == reply["end"]


def test_a_module_that_cannot_be_looked_into_offers_nothing(documented: Guest) -> None:
    code = "import { | } from 'trace_events'"
    reply = documented.call("complete", code=code.replace("|", ""), cursor=code.index("|"))
    assert reply["matches"] == []


def test_inspect_shows_source_and_comment(tmp_path: Path) -> None:
    guest = Guest(find_node(), tmp_path)
    source = "function twice(x) { return 2 * x }"
    guest.value(f"/**\n * Doubles it.\n *\n * @param x what\n */\n{source}")
    guest.run("/** Waits. */ const nap = async (ms: number): Promise<number> => ms;", cell="8")

    def inspect(code: str, detail: int = 0) -> str:
        reply = guest.call("inspect", code=code, cursor=2, detail=detail)
        assert reply["data"]["text/markdown"].startswith(f"**{code}: ")
        return str(reply["data"]["text/plain"])

    comment = "Doubles it.\n\n@param x what"
    assert inspect("twice") == f"twice: function\nfunction twice(x)\n\n{comment}"
    assert inspect("twice", 1) == f"{inspect('twice')}\n\n{source}"
    nap = "nap: function\nasync function nap(ms: number): Promise<number>\n\nWaits."
    assert inspect("nap") == nap
    assert inspect("nap", 1) == f"{nap}\n\nasync (ms: number): Promise<number> => ms"
    guest.run("function twice(y) { return y + y }", cell="9")
    assert inspect("twice") == "twice: function\nfunction twice(y)"
    guest.close()


@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        (
            "/** Adds. */ function later(a: number): void { return 1 };\nlater(1)",
            "later",
            "function\nfunction later(a: number): void\n\nAdds.",
        ),
        ("async function soon(a) {}; soon(1)", "soon", "function\nasync function soon(a)"),
        ("class New extends Map { x = 1 }; New", "New", "class\nclass New extends Map"),
        ("enum Way { Up }; Way", "Way", "enum\nenum Way { Up }"),
        ("const plus = (a) => a\nplus(1)", "plus", "declared here\nconst plus = (a) => a"),
    ],
)
def test_inspect_knows_what_the_cell_declares(
    documented: Guest, code: str, name: str, text: str
) -> None:
    cursor = code.rindex(name) + 1
    reply = documented.call("inspect", code=code, cursor=cursor, detail=0)
    assert reply["data"]["text/plain"] == f"{name}: {text}"


_TYPED = """
/** Global. */ function open() { return 1 }
const door = { open() { return 1 }, /** Shuts. */ shut() {} };
/** A box. */ abstract class Box<T> {
  count: number = 1;
  constructor(readonly_: T) {}
  /** Draws. */
  draw(where: string): void {}
}
/** Not of what follows. */ const five = 5
function bare<K, V>(m: Map<K, V>, n = [1]): { a: K } { return m }
"""


def test_comments_and_types_are_those_of_the_function_itself(tmp_path: Path) -> None:
    guest = Guest(find_node(), tmp_path)
    guest.value(_TYPED)
    # Rewritten as a whole, not only without its types.
    guest.run("enum Way { Up }\n/** Turns. */ function turn(way: Way) { return 1 }", cell="8")
    for code, text in [
        ("open", "function open()\n\nGlobal."),
        ("door.open", "function open()"),
        ("door.shut", "function shut()\n\nShuts."),
        ("Box.prototype.draw", "function draw(where: string): void\n\nDraws."),
        ("bare", "function bare<K, V>(m: Map<K, V>, n = [1]): { a: K }"),
        ("turn", "function turn(way)\n\nTurns."),
    ]:
        data = guest.call("inspect", code=code, cursor=len(code), detail=0)["data"]
        assert data["text/plain"] == f"{code}: function\n{text}"
    data = guest.call("inspect", code="Box", cursor=3, detail=0)["data"]
    assert data["text/plain"] == "Box: class\nclass Box { constructor(readonly_: T) }\n\nA box."
    guest.close()


_DOCUMENTED = """
const fs = require('fs'); const { join: glue } = require('path'); const list = [1];
const em = new (require('events'))(); const bytes = new Uint8Array(3); const map = new Map();
class Own extends Map { has(x) { return true } get size() { return 7 } } const own = new Own();
"""


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    guest = Guest(find_node(), tmp_path_factory.mktemp("documented"))
    guest.value(_DOCUMENTED)
    yield guest
    guest.close()


@pytest.mark.parametrize(
    ("code", "signature", "text"),
    [
        ("Math.max", "max(...values: number[]): number", "Returns the larger"),
        ("list.map(", "map<U>(callbackfn:", "Calls a defined callback"),
        ("list.length", "1", "Gets or sets the length"),
        ("bytes.map", "map(callbackfn: (value: number", "Calls a defined callback"),
        ("map.size", "0", "number of elements"),
        ("own.get", "get(key: K): V", "Returns a specified element"),
        ("'x'.padStart", "padStart(maxLength: number", "Pads the current string"),
        ("new Map", "new Map<K, V>(", ""),
        ("Promise.all", "all<T", "Creates a Promise"),
        ("fs.readFileSync", "options?: ", "Returns the contents"),
        ("fs.promises.readFile", "readFile", "entire contents"),
        ("fs", "appendFile: function", "enables interacting with the file system"),
        ("glue", "join(...paths: string[]): string", "@param paths"),
        ("em.on", "on<K>(eventName", "Adds the `listener` function"),
        ("process.argv", "", "returns an array containing the command-line"),
        ("process.nextTick", "nextTick(callback: Function", "next tick queue"),
        ("Buffer.from", "from(array:", ""),
        ("fetch", "fetch(input: ", "MDN Reference"),
        ("crypto.subtle", "subtle: SubtleCrypto", ""),
        ("import os from 'node:os'; os.cpus", "cpus(): CpuInfo[]", "logical CPU core"),
        ("import { cpus as c } from 'os'; c(", "cpus(): CpuInfo[]", "logical CPU core"),
        ("const z = require('zlib'); z.gzipSync", "gzipSync(buf: InputType", "Compress a chunk"),
        ("require('zlib').gzipSync", "gzipSync(buf: InputType", "Compress a chunk"),
        ("new (require('node:events').EventEmitter", "", "EventEmitter"),
        ("progress(", "progress: function\nprogress(what", "A bar."),
        ("clear_output", "clear_output: function\nclear_output(wait", "Removes"),
        ("display.html", "display.html(value: any", "Shows HTML"),
        ("display.table", "columns?: string[], rows?: number", "Shows records"),
        ("input(", "input(prompt", "Asks the person"),
    ],
)
def test_inspect_knows_what_node_offers(
    documented: Guest, code: str, signature: str, text: str
) -> None:
    data = documented.call("inspect", code=code, cursor=len(code), detail=0)["data"]
    assert signature in data["text/plain"]
    assert text in data["text/plain"]
    assert text in data["text/markdown"]


def test_inspect_knows_what_is_being_imported(documented: Guest) -> None:
    for code in ("import { cpus, hostname } from 'os'", "const { cpus } = require('node:os')"):
        reply = documented.call("inspect", code=code, cursor=code.index("cpus") + 2, detail=0)
        assert "cpus(): CpuInfo[]" in reply["data"]["text/plain"]


def test_inspect_takes_nothing_of_the_users_for_a_builtin(documented: Guest) -> None:
    for code, text in [
        ("own.has", "own.has: function\nfunction has(x)"),
        ("own.size", "own.size: accessor\nget size() { return 7 }"),
        ("const fetch = 5; fetc", None),
    ]:
        data = documented.call("inspect", code=code, cursor=len(code), detail=0)["data"]
        assert data.get("text/plain") == text
