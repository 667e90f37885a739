"""What survives a rewind: each thing is set up, left behind or changed, and brought back alive."""

from __future__ import annotations

import time

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e


# -- time and promises -------------------------------------------------------------------------


def test_an_interval_goes_on_counting_from_where_it_was(kernel: Kernel) -> None:
    at = kernel.ok("let n = 0; const timer = setInterval(() => n++, 10)").count
    assert kernel.until("n > 200 && n") > 200
    kernel.rewind(at)
    assert kernel.value("n") < 200
    kernel.until("n > 30")


def test_time_does_not_jump(kernel: Kernel) -> None:
    """The monotonic clock stands still between the checkpoint and the rewind."""
    at = kernel.ok(
        "let rang = false; setTimeout(() => { rang = true }, 1500); const began = performance.now()"
    ).count
    began = time.monotonic()
    kernel.until("rang")
    kernel.rewind(at)
    lived = kernel.value("[rang, performance.now() - began]")
    passed = time.monotonic() - began
    assert lived[1] / 1000 < passed - 1.2, "the guest lived through the time that was undone"
    assert lived[0] is False
    kernel.until("rang")


def test_promises_and_async_functions(kernel: Kernel) -> None:
    at = kernel.ok(
        "let open; const gate = new Promise((r) => { open = r }); const log = [];"
        "gate.then((v) => log.push(['then', v]));"
        "(async () => { for await (const v of [gate]) log.push(['for await', v]) })();"
        "const all = Promise.all([gate, 2]); 0"
    ).count
    kernel.ok("open('first')")
    assert kernel.until("log.length === 2 && log") == [["then", "first"], ["for await", "first"]]
    kernel.rewind(at)
    assert kernel.value("log") == []
    kernel.ok("open('second')")
    assert kernel.value("all") == ["second", 2]
    assert kernel.until("log.length === 2 && log") == [["then", "second"], ["for await", "second"]]


def test_a_generator_in_the_middle(kernel: Kernel) -> None:
    at = kernel.ok(
        "const it = (function* () { for (let i = 0; ; i++) yield i })(); it.next(); it.next().value"
    ).count
    kernel.ok("it.next(); it.next()")
    kernel.rewind(at)
    assert kernel.value("it.next().value") == 2


# -- files -------------------------------------------------------------------------------------


def test_an_open_file_keeps_position_and_content(kernel: Kernel) -> None:
    at = kernel.ok(
        "const fs = require('node:fs'); fs.writeFileSync('read', 'abcdefghij');"
        "const r = fs.openSync('read', 'r'); const w = fs.openSync('write', 'w+');"
        "const take = (n) => { const b = Buffer.alloc(n); return b.toString('latin1', 0, "
        "  fs.readSync(r, b, 0, n, null)) };"
        "take(3); fs.writeSync(w, '123')"
    ).count
    kernel.ok("take(4); fs.writeSync(w, 'undone, and much longer'); fs.appendFileSync('read', '!')")
    kernel.rewind(at)
    assert kernel.value("take(4)") == "defg"
    kernel.ok("fs.writeSync(w, '456')")
    assert kernel.value("fs.readFileSync('write', 'utf8')") == "123456"
    assert kernel.value("fs.readFileSync('read', 'utf8')") == "abcdefghij"


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_an_unlinked_file_that_is_still_open(kernel: Kernel, size: int) -> None:
    at = kernel.ok(
        f"const fs = require('node:fs'); const f = fs.openSync('gone', 'w+');"
        f"fs.writeSync(f, Buffer.alloc({size}, 'g')); fs.unlinkSync('gone');"
    ).count
    kernel.ok("fs.ftruncateSync(f, 0); fs.closeSync(f)")
    kernel.rewind(at)
    assert kernel.value(
        f"(() => {{ const b = Buffer.alloc({size}); fs.readSync(f, b, 0, {size}, 0);"
        f" return [fs.fstatSync(f).size, b.every((c) => c === 103), fs.existsSync('gone')] }})()"
    ) == [size, True, False]


def test_a_watched_folder(kernel: Kernel) -> None:
    at = kernel.ok(
        "const fs = require('node:fs'); const seen = new Set(); fs.mkdirSync('watched');"
        "const watcher = fs.watch('watched', (_, name) => seen.add(name)); 0"
    ).count
    kernel.ok("fs.writeFileSync('watched/one', '1')")
    kernel.until("seen.has('one')")
    kernel.ok("watcher.close()")
    kernel.rewind(at)
    kernel.ok("fs.writeFileSync('watched/two', '2')")
    kernel.until("seen.has('two')")
    assert kernel.value("[...seen]") == ["two"]


def test_a_stream_in_the_middle_of_a_file(kernel: Kernel) -> None:
    at = kernel.ok(
        "const fs = require('node:fs'); fs.writeFileSync('big', Buffer.alloc(1 << 20, 'x'));"
        "const stream = fs.createReadStream('big', { highWaterMark: 1000 });"
        "const parts = stream.iterator({ destroyOnReturn: false }); await parts.next(); 0"
    ).count
    kernel.ok("stream.destroy(); fs.unlinkSync('big')")
    kernel.rewind(at)
    assert (
        kernel.value(
            "(async () => { let n = 1000; for await (const p of parts) n += p.length; return n })()"
        )
        == 1 << 20
    )


def test_sqlite_in_a_transaction(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { DatabaseSync } = require('node:sqlite'); const db = new DatabaseSync('notes.db');"
        "db.exec(`PRAGMA journal_mode = WAL; CREATE TABLE t (v); INSERT INTO t VALUES ('kept');"
        "  BEGIN; INSERT INTO t VALUES ('open')`);"
        "const rows = (d = db) => d.prepare('SELECT v FROM t').all().map((r) => r.v); rows().length"
    ).count
    kernel.ok("db.exec(`INSERT INTO t VALUES ('undone'); COMMIT`); db.exec(`DELETE FROM t`)")
    kernel.rewind(at)
    assert kernel.value("rows()") == ["kept", "open"]
    kernel.ok("db.exec(`INSERT INTO t VALUES ('new'); COMMIT`)")
    assert kernel.value("rows(new DatabaseSync('notes.db'))") == ["kept", "open", "new"]
    assert kernel.value("db.prepare('PRAGMA integrity_check').get().integrity_check") == "ok"


# -- computation -------------------------------------------------------------------------------


# (module (memory (export "m") 1) (func (export "bump") (result i32)
#   (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
#   (i32.load (i32.const 0))))
def _wasm() -> str:
    """The module above as hexadecimal digits, put together from its sections."""
    body = bytes.fromhex("004100410028020041016a36020041002802000b")
    sections = {
        1: bytes([1, 0x60, 0, 1, 0x7F]),
        3: bytes([1, 0]),
        5: bytes([1, 0, 1]),
        7: bytes([2, 1]) + b"m" + bytes([2, 0, 4]) + b"bump" + bytes([0, 0]),
        10: bytes([1, len(body)]) + body,
    }
    parts = b"".join(bytes([kind, len(data)]) + data for kind, data in sections.items())
    return (b"\0asm\1\0\0\0" + parts).hex()


def test_webassembly_memory(kernel: Kernel) -> None:
    at = kernel.ok(
        f"const {{ instance }} = await WebAssembly.instantiate(Buffer.from('{_wasm()}', 'hex'));"
        "const { bump, m } = instance.exports; m.grow(10); new Uint8Array(m.buffer)[500000] = 7;"
        "bump(); bump()"
    ).count
    kernel.ok("bump(); m.grow(5); new Uint8Array(m.buffer).fill(1)")
    kernel.rewind(at)
    assert kernel.value(
        "[bump(), m.buffer.byteLength / 65536, new Uint8Array(m.buffer)[500000]]"
    ) == [3, 11, 7]


def test_crypto_in_flight(kernel: Kernel) -> None:
    code = (
        "const crypto = require('node:crypto'); const { promisify } = require('node:util');"
        "const jobs = [1, 2, 3, 4, 5, 6].map((salt) => promisify(crypto.pbkdf2)('key', `${salt}`,"
        " 400000, 32, 'sha256').then((key) => key.toString('hex'))); let done = 0;"
        "for (const job of jobs) job.then(() => done++); 0"
    )
    at = kernel.ok(code).count
    first = kernel.value("Promise.all(jobs)")
    kernel.rewind(at)
    assert kernel.value("done") < 6, "all was over before the checkpoint: this tested nothing"
    assert kernel.value("Promise.all(jobs)") == first
    assert len(set(first)) == 6


def test_compression_in_the_middle(kernel: Kernel) -> None:
    at = kernel.ok(
        "const zlib = require('node:zlib'); const parts = []; const gzip = zlib.createGzip();"
        "gzip.on('data', (d) => parts.push(d)); const half = 'half '.repeat(50000);"
        "await new Promise((r) => gzip.write(half, r));"
    ).count
    kernel.ok("gzip.end('undone')")
    kernel.rewind(at)
    assert kernel.value(
        "new Promise((r) => { gzip.on('end', () => r(zlib.gunzipSync(Buffer.concat(parts))"
        ".toString() === `${half}rest`)); gzip.end('rest') })"
    )


def test_a_big_heap(kernel: Kernel) -> None:
    at = kernel.ok(
        "const big = new Float64Array(5e6).map((_, i) => i * 0.5);"
        "const objects = Array.from({ length: 200000 }, (_, i) => ({ i, text: `n${i}` })); 0"
    ).count
    kernel.ok("big.fill(0); objects.length = 0")
    kernel.rewind(at)
    assert kernel.value("[big[4999999], objects.length, objects[123456].text]") == [
        2499999.5,
        200000,
        "n123456",
    ]


def test_an_endless_loop_is_interrupted_and_rewound_over(kernel: Kernel) -> None:
    at = kernel.ok("let loops = 0").count
    running = kernel.submit("console.log('spinning'); while (true) loops++")
    kernel.messages_until(running, "stream", "spinning")
    kernel.interrupt()
    spun = kernel.finish(running)
    assert spun.status == "error"
    assert kernel.value("loops") > 0
    kernel.rewind(at)
    assert kernel.value("loops") == 0
    kernel.rewind(spun.count)
    assert kernel.value("loops") > 0


def test_modules_environment_and_working_folder(kernel: Kernel) -> None:
    kernel.ok(
        "const fs = require('node:fs'); fs.mkdirSync('sub'); process.chdir('sub');"
        "fs.writeFileSync('lib.js', 'exports.n = 1'); process.env.WHERE = 'there'"
    )
    at = kernel.ok("const lib = require('./lib.js'); lib.n").count
    kernel.ok(
        "lib.n = 9; process.env.WHERE = 'gone'; process.chdir('/tmp');"
        "fs.rmSync('/home/work/sub', { recursive: true })"
    )
    kernel.rewind(at)
    assert kernel.value("[require('./lib.js').n, process.env.WHERE, process.cwd()]") == [
        1,
        "there",
        "/home/work/sub",
    ]


# -- what CRIU may not take --------------------------------------------------------------------


def test_a_pseudo_terminal_survives_or_is_named(kernel: Kernel) -> None:
    """Either the terminal goes on after a rewind, or a warning says that it is in the way."""
    before = kernel.ok("const { spawn } = require('node:child_process')").count
    opened = kernel.ok(
        "let out = ''; const child = spawn('python3', ['-uc', "
        '\'import pty; pty.spawn(["sh", "-c", "stty -echo; echo ready; '
        "while read l; do echo got-$l; done\"])']);"
        "child.stdout.on('data', (d) => { out += d });"
        "child.stderr.on('data', (d) => { out += d });"
        "for (const end = Date.now() + 10000; !out.includes('ready') && Date.now() < end;)"
        "  await new Promise((r) => setTimeout(r, 10)); out"
    )
    assert "ready" in opened.text, opened.text
    told = kernel.ok("child.stdin.write('one\\n')").stderr
    tree = kernel.ok("%timeline").shown
    (line,) = [row for row in tree.splitlines() if f" {opened.count} " in row][-1:]
    if "✗" in line:
        assert "terminal" in line
        assert "terminal" in told
        assert kernel.fails(f"%rewind {opened.count}").reply["ename"] == "NotRestorable"
        kernel.rewind(before)
        assert kernel.value("typeof child") == "undefined"
    else:
        kernel.rewind(opened.count)
        kernel.ok("child.stdin.write('two\\n')")
        assert "got-one" not in kernel.until("out.includes('got-two') && out")


def test_two_rewinds_to_one_state_are_independent(kernel: Kernel) -> None:
    at = kernel.ok(
        "let list = [1]; const fs = require('node:fs'); fs.writeFileSync('f', '1')"
    ).count
    for n in (2, 3):
        kernel.rewind(at)
        assert kernel.value("[list, fs.readFileSync('f', 'utf8')]") == [[1], "1"]
        kernel.ok(f"list.push({n}); fs.writeFileSync('f', '{n}')")
