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
from pathlib import Path
from typing import Any

import psutil
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

    def reply(self, to: int, seconds: float = 30) -> Message:
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
        while (event := self.events.get(timeout=30)).get("text") != "end of output":
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


def test_a_cell_that_comes_right_behind_a_message_is_no_part_of_its_handler(guest: Guest) -> None:
    """As JupyterLab's first ones on a busy machine: both are taken in one turn of the loop."""
    guest.value("setTimeout(() => { const end = Date.now() + 500; while (Date.now() < end); }, 50)")
    time.sleep(0.2)  # it spins
    message = {"kind": "open", "comm": "1", "target": "x", "data": {}, "metadata": {}}
    opened = guest.send("comm", delivery=5, buffers=[], **message)
    cell = guest.start("console.log('of the cell')")
    assert guest.reply(opened)["known"] is False
    guest.reply(cell)
    seen = [event.get("begins", event.get("text")) for event in guest.output()]
    assert seen == [True, False, "of the cell\n"]


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


def test_stdin_can_be_asked_what_a_pipe_can(guest: Guest) -> None:
    guest.value("const { stdin } = process; undefined")
    shape = "[stdin.ref() === stdin, stdin.unref() === stdin, stdin.isTTY, stdin.setRawMode]"
    assert guest.value(shape) == "[ true, true, undefined, undefined ]"


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
    process = psutil.Process(guest.process.pid)
    before = sum(process.cpu_times()[:2])
    guest.value("for (let i = 0; i < 10_000; i++) console.log('line', i)")
    assert sum(process.cpu_times()[:2]) - before < 2  # 0.2 s on an idle machine
    assert len(guest.texts()) == 10_000


def test_what_was_shown_is_not_kept_alive(guest: Guest) -> None:
    guest.value(
        "require('v8').setFlagsFromString('--expose-gc');"
        "var collect = require('vm').runInNewContext('gc'), refs = [];"
        "for (let i = 0; i < 3; i++) { const o = { i }; refs.push(new WeakRef(o)); console.log(o) }"
    )
    guest.value("refs.push(new WeakRef({ result: 1 })); refs[3].deref()")
    guest.error("{ const o = { thrown: 1 }; refs.push(new WeakRef(o)); throw o }")
    for _ in range(2):
        guest.error("throw new Error('two are kept')")
    guest.value("Out.length = 0")
    guest.value("await new Promise(r => setTimeout(r, 20)); collect(); undefined")
    assert guest.value("refs.filter(r => r.deref() !== undefined).length") == "0"


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


@pytest.mark.alone
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


@pytest.mark.alone
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
    guest.value("await new Promise(r => setInterval(() => ticks > 5 && r(), 5))")
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
