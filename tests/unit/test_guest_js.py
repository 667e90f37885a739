"""The Node guest alone, driven over real pipes as its supervisor drives it."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crkernel import image

MAIN = Path(__file__).parents[2] / "crkernel" / "guest" / "main.js"
Message = dict[str, Any]


def find_node() -> str:
    """The image's Node, which runs outside of the image as well; another one if so asked."""
    if node := os.environ.get("CRKERNEL_TEST_NODE"):
        return node
    return str(image.require_image() / "usr/local/bin/node")


class Guest:
    """A guest process and the test's ends of its pipes."""

    def __init__(self, node: str, cwd: Path) -> None:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        self._requests = pipes[0][1]
        # Out of the way of 3, 4 and 5, which is where the shell below puts them.
        moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 30) for descriptor in theirs]
        redirections = f"3<&{moved[0]} 4>&{moved[1]} 5>&{moved[2]}"
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", f'exec "$0" "$1" {redirections}', node, str(MAIN)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=moved,
            cwd=cwd,
        )
        for descriptor in (*theirs, *moved):
            os.close(descriptor)
        self.replies: queue.Queue[Message] = queue.Queue()
        self.events: queue.Queue[Message] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(pipes[1][0], self.replies)),
            threading.Thread(target=self._read, args=(pipes[2][0], self.events)),
        ]
        for reader in self._readers:
            reader.start()
        self.hello = self.replies.get(timeout=20)["hello"]
        self._id = 0
        self.colors = "errors"

    @staticmethod
    def _read(descriptor: int, target: queue.Queue[Message]) -> None:
        with os.fdopen(descriptor, "rb") as file:
            while header := file.read(4):
                body = file.read(struct.unpack(">I", header)[0])
                assert len(body) < 128 << 20
                target.put(json.loads(body))

    def send(self, op: str, **fields: Any) -> int:
        self._id += 1
        body = json.dumps({"id": self._id, "op": op, **fields}).encode()
        os.write(self._requests, struct.pack(">I", len(body)) + body)
        return self._id

    def reply(self, to: int, seconds: float = 10) -> Message:
        while True:
            message = self.replies.get(timeout=seconds)
            if message.get("id") == to:
                return message

    def call(self, op: str, **fields: Any) -> Message:
        return self.reply(self.send(op, **fields))

    def start(self, code: str, cell: str = "7", **fields: Any) -> int:
        request = {"code": code, "cell": cell, "silent": False, "user_expressions": {}}
        request |= {"colors": self.colors} | fields
        return self.send("execute", **request)

    def run(self, code: str, cell: str = "7", **fields: Any) -> Message:
        return self.reply(self.start(code, cell, **fields))

    def value(self, code: str) -> str | None:
        """The result of a cell that must succeed, as text."""
        reply = self.run(code)
        assert reply["status"] == "ok", reply
        text: str | None = reply["result"] and reply["result"]["data"]["text/plain"]
        return text

    def error(self, code: str, cell: str = "7") -> Message:
        """The error of a cell that must fail."""
        reply = self.run(code, cell)
        assert reply["status"] == "error", reply
        error: Message = reply["error"]
        return error

    def output(self) -> list[Message]:
        """The events so far; what the main thread has written before is among them."""
        self.run('process.stdout.write("end of output")')
        events: list[Message] = []
        while (event := self.events.get(timeout=10)).get("text") != "end of output":
            events.append(event)
        return events

    def texts(self) -> list[tuple[str, str]]:
        return [(e["name"], e["text"]) for e in self.output() if e["event"] == "stream"]

    def interrupt(self) -> float:
        """Interrupts the guest; returns the seconds it took."""
        began = time.monotonic()
        assert self.call("interrupt")["ok"]
        return time.monotonic() - began

    def close(self) -> None:
        os.close(self._requests)
        self.process.kill()
        self.process.communicate()
        for reader in self._readers:
            reader.join()


@pytest.fixture(scope="module")
def node() -> str:
    return find_node()


@pytest.fixture
def guest(node: str, tmp_path: Path) -> Iterator[Guest]:
    guest = Guest(node, tmp_path)
    yield guest
    guest.close()


def test_hello_says_who_it_is(guest: Guest) -> None:
    hello = guest.hello
    assert hello["language"] == "javascript"
    assert hello["protocol"] == 1
    assert hello["pid"] == guest.process.pid
    assert hello["version"].startswith("v")
    assert Path(f"/proc/{hello['pid']}/task/{hello['worker_tid']}").exists()


def test_results_look_like_those_of_the_repl(guest: Guest) -> None:
    assert guest.value("1 + 1") == "2"
    assert guest.value("({a: 1, b: [1, 2]})") == "{ a: 1, b: [ 1, 2 ] }"
    assert guest.value("{a: 1}") == "{ a: 1 }"
    assert guest.value("{ let x = 1; x + 1 }") == "2"
    assert guest.value("'it'") == "'it'"
    assert guest.value("-0") == "-0"
    assert guest.value("10n ** 20n") == "100000000000000000000n"
    assert guest.value("null") == "null"
    assert guest.value("Symbol('s')") == "Symbol(s)"
    assert guest.value("Promise.resolve(1)") == "Promise { 1 }"
    assert guest.value("undefined") is None
    assert guest.value("") is None
    assert guest.value("let unused = 1") is None


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


def test_results_of_long_ago_are_forgotten(guest: Guest) -> None:
    for cell in (1, 2, 1001):
        guest.run(f"({{ from: {cell} }})", cell=str(cell))
    seen = "[typeof _1, typeof _2, 1 in In, 1 in Out, 2 in Out]"
    assert guest.value(seen) == "[ 'undefined', 'object', false, false, true ]"


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
        ("let t: number = 5\nt as number;", None),
        ("enum M { A = 5 }\nM.A;", None),
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


def test_names_can_be_declared_again_and_stay(guest: Guest) -> None:
    guest.value("const a = 1; let b = 2; class C {}")
    guest.value("const a = 10; let b = 20; class C { static d = 30 }")
    assert guest.value("a + b + C.d") == "60"


def test_top_level_await(guest: Guest) -> None:
    assert guest.value("const late = await new Promise(r => setTimeout(r, 5, 'x')); late") == "'x'"
    assert guest.error("await Promise.reject(new RangeError('r'))")["name"] == "RangeError"


def test_user_expressions_and_silence(guest: Guest) -> None:
    expressions = {"a": "x + 1", "b": "null.y", "c": "await 4"}
    reply = guest.run("var x = 1; x", silent=True, user_expressions=expressions)
    assert reply["result"] is None
    table = reply["user_expressions"]
    assert table["a"] == {"status": "ok", "data": {"text/plain": "2"}, "metadata": {}}
    assert table["b"]["status"] == "error"
    assert table["b"]["error"]["name"] == "TypeError"
    assert table["c"]["data"] == {"text/plain": "4"}


def test_output_keeps_its_order(guest: Guest) -> None:
    guest.value(
        "console.log('1'); console.error('2'); process.stdout.write('3');"
        "process.stderr.write('4\\n', () => console.log('6')); console.info('5'); await null"
    )
    assert guest.texts() == [
        ("stdout", "1\n"),
        ("stderr", "2\n"),
        ("stdout", "3"),
        ("stderr", "4\n"),
        ("stdout", "5\n"),
        ("stdout", "6\n"),
    ]


def test_bytes_are_decoded_across_writes_and_big_writes_are_split(guest: Guest) -> None:
    guest.value("for (const b of Buffer.from('€')) process.stdout.write(Buffer.from([b]))")
    assert guest.texts() == [("stdout", "€")]
    guest.value("process.stdout.write('x' + '😀'.repeat(400_000)); undefined")
    texts = [text for _, text in guest.texts()]
    assert len(texts) > 1
    assert "".join(texts) == "x" + "😀" * 400_000


def test_stdout_behaves_like_a_stream(guest: Guest) -> None:
    shape = "[process.stdout.isTTY, process.stdout.columns, process.stdout.writable]"
    assert guest.value(shape) == "[ undefined, 80, true ]"
    assert guest.error("process.stdout.write(5)")["code"] == "ERR_INVALID_ARG_TYPE"
    guest.value("process.stdout.end('a'); process.stdout.write('b'); undefined")
    guest.value(
        "const { Readable } = require('stream'); Readable.from(['c']).pipe(process.stdout);"
        "await new Promise(r => setTimeout(r, 20))"
    )
    assert [text for _, text in guest.texts()] == ["a", "b", "c"]


def test_output_of_threads_and_children(guest: Guest) -> None:
    guest.value(
        "const { Worker } = require('worker_threads');"
        "const w = new Worker('console.log(\"thread\")', { eval: true });"
        "await new Promise(r => w.on('exit', r)); undefined"
    )
    assert ("stdout", "thread\n") in guest.texts()
    guest.value(
        "const cp = require('child_process'); cp.execSync('echo raw', { stdio: 'inherit' });"
        "console.log('after');"
        "await new Promise(r => cp.spawn('echo', ['raw'], { stdio: 'inherit' }).on('exit', r));"
        "console.log('end')"
    )
    seen = [event.get("text") or event["event"] for event in guest.output()]
    assert seen == ["fence", "after\n", "fence", "end\n"]


def test_many_lines_are_quick(guest: Guest) -> None:
    began = time.monotonic()
    guest.value("for (let i = 0; i < 10_000; i++) console.log('line', i)")
    assert time.monotonic() - began < 2  # 0.2 s on an idle machine
    assert len(guest.texts()) == 10_000


def test_what_was_shown_is_not_kept_alive(guest: Guest) -> None:
    guest.value(
        "require('v8').setFlagsFromString('--expose-gc');"
        "var collect = require('vm').runInNewContext('gc'), refs = [];"
        "for (let i = 0; i < 3; i++) { const o = { i }; refs.push(new WeakRef(o)); console.log(o) }"
    )
    guest.value("refs.push(new WeakRef({ result: 1 })); refs[3].deref()")
    guest.value("Out.length = 0")
    guest.value("await new Promise(r => setTimeout(r, 20)); collect(); undefined")
    assert guest.value("refs.filter(r => r.deref() !== undefined).length") == "0"


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


def test_errors_with_codes_and_causes(guest: Guest) -> None:
    guest.colors = "none"
    error = guest.error("require('fs').readFileSync('/nowhere')")
    assert error["code"] == "ENOENT"
    assert not any("node:" in line for line in error["traceback"])
    error = guest.error("throw new Error('outer', {cause: new Error('inner')})")
    assert any("[cause]: Error: inner" in line for line in error["traceback"])
    error = guest.error("throw new AggregateError([new Error('one')], 'all')")
    assert any("Error: one" in line for line in error["traceback"])


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
    traceback = guest.error("require('./bad.js')")["traceback"]
    assert traceback[0] == f"{tmp_path}/bad.js:2"
    assert traceback[1] == "let x = = 5"


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


def test_handlers_of_the_user_run_too(guest: Guest) -> None:
    guest.value(
        "process.on('uncaughtException', e => console.log('mine', e.message));"
        "setTimeout(() => { throw new Error('x') }, 1); await new Promise(r => setTimeout(r, 20))"
    )
    assert [event["event"] for event in guest.output()] == ["error", "stream"]


LOOPS = {
    "loop": "while (true);",
    "loop that catches": "for (;;) try { for (;;); } catch {} finally {}",
    "output loop": "while (true) console.log('x'.repeat(100))",
    "await": "await new Promise(() => {})",
    "loop after an await": "await 1; while (true);",
    "microtasks": "while (true) await null",
    "timer": "setTimeout(() => { for (;;); }, 1); await new Promise(() => {})",
    "interval": "setInterval(() => { for (;;); }, 1); await new Promise(() => {})",
    "tick": "process.nextTick(() => { for (;;); }); await new Promise(() => {})",
    "callback": "require('fs').stat('/', () => { for (;;); }); await new Promise(() => {})",
    "Atomics.wait": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
    "spawnSync": "require('child_process').spawnSync('sleep', ['10'])",
    "execSync": "for (;;) require('child_process').execSync('sleep 10; sleep 10')",
}


@pytest.mark.parametrize("hooks", [False, True], ids=["", "async_hooks"])
def test_interrupt_stops_everything_and_keeps_state(guest: Guest, hooks: bool) -> None:
    guest.value("var kept = { n: 40 }")
    if hooks:
        guest.value("require('async_hooks').createHook({ before() {}, after() {} }).enable()")
    for kind, code in LOOPS.items():
        cell = guest.start(code)
        time.sleep(0.1)
        seconds = guest.interrupt()
        error = guest.reply(cell)["error"]
        assert (error["name"], error["interrupted"]) == ("Interrupted", True), kind
        assert error["message"] == "the cell was interrupted"
        assert seconds < 1, kind  # 0.07 s, execSync 0.15 s, on an idle machine
        later = "await new Promise(r => setTimeout(r, 2)); kept.n += 1; kept.n - 1"
        assert guest.value(later) is not None, kind
    assert guest.value("kept.n") == str(40 + len(LOOPS))
    assert guest.process.poll() is None


def test_a_cell_that_cannot_be_stopped_goes_on(guest: Guest, tmp_path: Path) -> None:
    """Outside of the image nothing can end a read of a silent FIFO."""
    os.mkfifo(tmp_path / "silent")
    silent = os.open(tmp_path / "silent", os.O_RDWR)
    cell = guest.start("require('fs').readFileSync('silent'); for (;;);")
    time.sleep(0.1)
    assert not guest.call("interrupt")["ok"]
    assert guest.replies.empty()
    os.close(silent)
    assert guest.reply(cell)["error"]["interrupted"], "the interrupt strikes when the read returns"
    assert guest.value("await 1 + 1") == "2"


def test_an_open_that_waits_for_the_other_side_is_interrupted(guest: Guest, tmp_path: Path) -> None:
    for flags in ("r", "w"):
        os.mkfifo(tmp_path / flags)
        cell = guest.start(f"require('fs').openSync('{flags}', '{flags}')")
        time.sleep(0.1)
        assert guest.interrupt() < 1
        assert guest.reply(cell)["error"]["interrupted"]
    assert guest.value("1 + 1") == "2"


def test_output_beyond_a_frame_is_refused(guest: Guest) -> None:
    size = "'x'.repeat(129 * 2 ** 20)"
    error = guest.error(f"display({size})")
    assert error["name"] == "RangeError"
    assert error["message"].startswith("129 MiB are too much for one output, the limit is 128 MiB")
    assert error["traceback"][-1] == "    at cell 7:1:1"
    shows = f"({{ [Symbol.for('Jupyter.display')]: () => ({{ 'text/html': {size} }}) }})"
    assert guest.error(shows)["message"] == error["message"]
    assert guest.value("1 + 1") == "2"


def test_interrupt_of_an_idle_guest_leaves_nothing_terminating(guest: Guest) -> None:
    guest.value("var ticks = 0; setInterval(() => { ticks += 1 }, 5); undefined")
    for _ in range(5):
        guest.interrupt()
    time.sleep(0.1)
    assert int(guest.value("ticks") or 0) > 5
    assert guest.value("await 5") == "5"


def test_interrupt_stops_a_timer_while_no_cell_runs(guest: Guest) -> None:
    guest.value("setTimeout(() => { for (;;); }, 20); undefined")
    time.sleep(0.1)
    assert guest.call("ping") == {"id": guest._id, "ok": True}
    guest.interrupt()
    assert guest.value("1 + 1") == "2"


def test_late_results_of_an_interrupted_cell_are_ignored(guest: Guest) -> None:
    first = guest.start("await new Promise(r => { globalThis.go = r })")
    time.sleep(0.05)
    guest.interrupt()
    guest.reply(first)
    assert guest.value("go(5); await new Promise(r => setTimeout(r, 20, 'second'))") == "'second'"
    assert guest.replies.empty()


def test_a_cell_waits_for_a_callback_that_runs(guest: Guest) -> None:
    guest.value(
        "var log = []; setTimeout(() => {"
        " log.push('begin'); const t = Date.now(); while (Date.now() - t < 100); log.push('end')"
        "}, 20); undefined"
    )
    time.sleep(0.05)
    assert guest.value("log.push('cell'); log") == "[ 'begin', 'end', 'cell' ]"


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
        " " * (column - 1) + "^",
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


@pytest.fixture(scope="module")
def shared(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for tests that only look."""
    guest = Guest(node, tmp_path_factory.mktemp("shared"))
    yield guest
    guest.close()


def test_the_worker_answers_while_a_cell_spins(guest: Guest) -> None:
    cell = guest.start("for (;;);")
    time.sleep(0.05)
    assert guest.call("ping")["ok"]
    assert guest.call("is_complete", code="if (x) {")["status"] == "incomplete"
    assert guest.run("1")["error"]["name"] == "Busy"
    guest.interrupt()
    guest.reply(cell)
    assert guest.call("hello")["main"] is True


def test_patched_globals_do_not_break_the_guest(guest: Guest) -> None:
    guest.value(
        "require('fs').writeSync = null;"
        "globalThis.JSON = null; globalThis.Promise = null; globalThis.Reflect = null;"
        "for (const f of ['map', 'filter', 'concat', 'join', 'slice', 'find'])"
        "  Array.prototype[f] = null;"
        "for (const f of Object.getOwnPropertyNames(String.prototype))"
        "  if (!['constructor', 'length', 'toString'].includes(f)) String.prototype[f] = null;"
        "Map.prototype.get = null; Object.keys = null; Object.defineProperty = null;"
        "Buffer.from = null; Buffer.prototype.write = null; Object.prototype.polluted = 1;"
        "process.cwd = null; process.nextTick = null; undefined"
    )
    assert guest.value("1 + 1") == "2"
    assert guest.value("[1, 'a', {a: 1}]") == "[ 1, 'a', { a: 1 } ]"
    assert guest.error("null.x")["traceback"][-1] == "    at cell 7:1:6"
    assert guest.error("foo bar")["traceback"][0] == "cell 7:1:5"
    assert guest.error("throw 42")["message"] == "42"
    assert guest.value("const t: number = 6; await t") == "6"
    assert guest.value("import os from 'os'; typeof os.cpus") == "'function'"
    guest.value("console.log('still', {here: 1}); display(5)")
    assert [event["event"] for event in guest.output()] == ["stream", "display"]
    cell = guest.start("for (;;);")
    time.sleep(0.05)
    guest.interrupt()
    assert guest.reply(cell)["error"]["interrupted"]
    guest.value("console.log = null; process.stdout.write = null; process.stdout = 5; 1")
    assert guest.value("1 + 1") == "2"


def test_the_harness_leaves_no_traces(guest: Guest) -> None:
    assert guest.value("[process.argv.length, require.main]") == "[ 1, undefined ]"
    assert guest.value("Object.keys(require.cache)") == "[]"
    assert guest.value("Object.keys(globalThis).filter(k => /crkernel|holder/.test(k))") == "[]"


def test_bad_requests_are_refused(guest: Guest) -> None:
    assert "unknown operation" in guest.call("dance")["error"]["message"]
    assert guest.value("1 + 1") == "2"


def test_the_guest_ends_when_it_wants_to(guest: Guest) -> None:
    guest.value("process.on('exit', c => require('fs').writeFileSync('code', `${c}`)); undefined")
    guest.start("process.exit(3)")
    assert guest.process.wait(timeout=10) == 3


def test_the_guest_ends_with_its_supervisor(node: str, tmp_path: Path) -> None:
    guest = Guest(node, tmp_path)
    guest.start("for (;;);")
    time.sleep(0.05)
    os.close(guest._requests)
    assert guest.process.wait(timeout=10) == -9
    guest.process.communicate()
    for reader in guest._readers:
        reader.join()


def test_an_idle_guest_is_idle(guest: Guest) -> None:
    def switches() -> int:
        tasks = Path(f"/proc/{guest.process.pid}/task")
        lines = [line for t in tasks.iterdir() for line in (t / "status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    guest.value("1 + 1")
    time.sleep(0.5)
    before = switches()
    time.sleep(0.5)
    assert switches() == before
