"""What survives a rewind among whatever talks to others: sockets, child processes, threads."""

from __future__ import annotations

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e


# -- sockets -----------------------------------------------------------------------------------

HTTP = """
const http = require('node:http')
let served = 0
const server = http.createServer({ keepAliveTimeout: 0 }, (q, r) => r.end(`${q.url} ${++served}`))
await new Promise((r) => server.listen(0, '127.0.0.1', r))
const port = server.address().port
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
function get(path, options) {
  return new Promise((resolve, reject) => {
    http.get({ port, path, ...options }, (r) => {
      const by = r.socket.localPort
      let text = ''
      r.on('data', (d) => { text += d }).on('end', () => resolve([text, by]))
    }).on('error', reject)
  })
}
const first = await get('/a', { agent })
"""


def test_an_http_server_and_its_kept_alive_connection(kernel: Kernel) -> None:
    at = kernel.ok(HTTP).count
    first = kernel.value("first")
    assert first[0] == "/a 1"
    for _ in range(3):
        kernel.value("get('/x', { agent })")
    kernel.rewind(at)
    again = kernel.value("get('/b', { agent })")
    assert again == ["/b 2", first[1]], "the established connection goes on"
    assert kernel.value("get('/c', { agent: false })")[0] == "/c 3"
    assert kernel.value("fetch(`http://127.0.0.1:${port}/d`).then((r) => r.text())") == "/d 4"


def test_a_tcp_connection_with_bytes_on_the_way(kernel: Kernel) -> None:
    at = kernel.ok(
        "const net = require('node:net'); const got = []; let peer;"
        "const listener = net.createServer((s) => { peer = s; s.pause() });"
        "await new Promise((r) => listener.listen(0, r));"
        "const sender = net.connect(listener.address().port);"
        "await new Promise((r) => sender.on('connect', r)); sender.write('unread ');"
        "for (;;) { if (peer) break; await new Promise((r) => setTimeout(r, 5)) }"
    ).count
    kernel.ok("peer.destroy(); sender.destroy()")
    kernel.rewind(at)
    kernel.ok("peer.on('data', (d) => got.push(`${d}`)); peer.resume(); sender.write('more')")
    assert kernel.until("got.join('') === 'unread more' && got.join('')") == "unread more"


def test_unix_sockets(kernel: Kernel) -> None:
    at = kernel.ok(
        "const net = require('node:net'); let heard = ''; let echoed = '';"
        "const server = net.createServer((s) => s.on('data', (d) => { heard += d; s.write(d) }));"
        "await new Promise((r) => server.listen('/tmp/echo.sock', r));"
        "const client = net.connect('/tmp/echo.sock'); client.on('data', (d) => { echoed += d });"
        "await new Promise((r) => client.once('connect', r)); client.write('a');"
    ).count
    kernel.until("echoed === 'a'")
    kernel.ok("client.write('undone'); client.end()")
    kernel.rewind(at)
    kernel.ok("client.write('b')")
    assert kernel.until("echoed.endsWith('b') && [heard, echoed]") == ["ab", "ab"]
    assert (
        kernel.value(
            "new Promise((r) => { const c = net.connect('/tmp/echo.sock');"
            "c.on('data', (d) => { r(`${d}`); c.end() }); c.write('new') })"
        )
        == "new"
    )


def test_udp_sockets(kernel: Kernel) -> None:
    at = kernel.ok(
        "const dgram = require('node:dgram'); const got = [];"
        "const a = dgram.createSocket('udp4'); const b = dgram.createSocket('udp4');"
        "a.on('message', (m) => got.push(`${m}`));"
        "await new Promise((r) => a.bind(0, '127.0.0.1', r));"
        "await new Promise((r) => b.connect(a.address().port, '127.0.0.1', r)); b.send('1')"
    ).count
    kernel.until("got.length === 1")
    kernel.ok("b.send('undone'); a.close()")
    kernel.rewind(at)
    kernel.ok("b.send('2')")
    assert kernel.until("got.includes('2') && got") == ["1", "2"]


# -- children ----------------------------------------------------------------------------------


def test_a_sleeping_child_and_its_exit_event(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { spawn } = require('node:child_process'); const ended = [];"
        "const child = spawn('sleep', ['1000']); child.on('exit', (c, s) => ended.push([c, s])); 0"
    ).count
    pid = kernel.value("child.pid")
    kernel.ok("child.kill('SIGKILL')")
    kernel.until("ended.length")
    kernel.rewind(at)
    assert kernel.value("[child.pid, ended, child.exitCode]") == [pid, [], None]
    kernel.ok("child.kill('SIGTERM')")
    assert kernel.until("ended.length && ended") == [[None, "SIGTERM"]]


def test_a_piped_child(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { spawn } = require('node:child_process'); let out = ''; let code;"
        "const child = spawn('sh', ['-c', 'cat; exit 3']);"
        "child.stdout.on('data', (d) => { out += d }); child.on('close', (c) => { code = c });"
        "child.stdin.write('a');"
    ).count
    kernel.until("out === 'a'")
    kernel.ok("child.stdin.end('undone')")
    kernel.until("code === 3")
    kernel.rewind(at)
    kernel.ok("child.stdin.end('b')")
    assert kernel.until("code !== undefined && [out, code]") == ["ab", 3]


def test_a_forked_child_keeps_its_own_state(kernel: Kernel) -> None:
    at = kernel.ok(
        "require('node:fs').writeFileSync('child.js', "
        "  `let n = 0; process.on('message', (by) => process.send(n += by))`);"
        "const { fork } = require('node:child_process'); const child = fork('./child.js');"
        "const ask = (by) => new Promise((r) => { child.once('message', r); child.send(by) });"
        "await ask(5)"
    ).count
    assert kernel.value("ask(10)") == 15
    kernel.rewind(at)
    assert kernel.value("ask(1)") == 6


def test_a_detached_shell(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { spawn } = require('node:child_process'); const fs = require('node:fs');"
        "const child = spawn('sh', ['-c', 'while read line; do echo \"$line\" >> lines; done'],"
        "  { detached: true, stdio: ['pipe', 'ignore', 'ignore'] }); child.unref();"
        "const lines = () => fs.existsSync('lines') ? fs.readFileSync('lines', 'utf8') : '';"
        "child.stdin.write('one\\n'); for (;;) {"
        "  if (lines()) break; await new Promise((r) => setTimeout(r, 5)) }"
    ).count
    kernel.ok("child.stdin.write('undone\\n')")
    kernel.until("lines().includes('undone')")
    kernel.rewind(at)
    assert kernel.value("lines()") == "one\n"
    kernel.ok("child.stdin.write('two\\n')")
    assert kernel.until("lines().includes('two') && lines()") == "one\ntwo\n"


def test_a_pipeline(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { spawn } = require('node:child_process'); let out = ''; let code;"
        "const child = spawn('sh', ['-c', 'cat | tr a-z A-Z | sort -r | cat']);"
        "child.stdout.on('data', (d) => { out += d }); child.on('close', (c) => { code = c });"
        "child.stdin.write('a\\n');"
    ).count
    kernel.ok("child.stdin.end('undone\\n')")
    kernel.until("code === 0")
    kernel.rewind(at)
    kernel.ok("child.stdin.end('b\\n')")
    assert kernel.until("code === 0 && out") == "B\nA\n"


def test_a_childs_late_output_on_the_guests_own_streams(kernel: Kernel) -> None:
    """Inherited descriptors are pipes of the supervisor, which differ after a rewind."""
    at = kernel.ok(
        "const { spawn } = require('node:child_process');"
        "const child = spawn('sh', ['-c', 'while read l; do echo \"said $l\"; done'],"
        "  { stdio: ['pipe', 'inherit', 'inherit'] }); 0"
    ).count
    kernel.ok("child.stdin.end()")
    kernel.rewind(at)
    result = kernel.ok("child.stdin.write('hello\\n'); 0")
    kernel.messages_until(result, "stream", "said hello")


# -- threads -----------------------------------------------------------------------------------


def test_worker_threads_and_shared_memory(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { Worker } = require('node:worker_threads');"
        "const shared = new Int32Array(new SharedArrayBuffer(8));"
        "const worker = new Worker(`const { parentPort: p, workerData: s } ="
        "  require('node:worker_threads'); let n = 0;"
        "  p.on('message', (by) => { n += by; Atomics.add(s, 1, by); p.postMessage(n) })`,"
        "  { eval: true, workerData: shared });"
        "const ask = (by) => new Promise((r) => { worker.once('message', r);"
        "  worker.postMessage(by) });"
        "await ask(5)"
    ).count
    assert kernel.value("ask(10)") == 15
    kernel.rewind(at)
    assert kernel.value("[await ask(1), shared[1]]") == [6, 6]
    kernel.ok("await worker.terminate()")


def test_a_thread_that_waits(kernel: Kernel) -> None:
    at = kernel.ok(
        "const { Worker } = require('node:worker_threads'); let woken;"
        "const shared = new Int32Array(new SharedArrayBuffer(4));"
        "const worker = new Worker(`const { parentPort: p, workerData: s } ="
        "  require('node:worker_threads'); p.postMessage('up');"
        "  p.postMessage(Atomics.wait(s, 0, 0))`, { eval: true, workerData: shared });"
        "await new Promise((r) => worker.once('message', r));"
        "worker.on('message', (how) => { woken = how }); 0"
    ).count
    kernel.until("Atomics.notify(shared, 0) || woken")
    kernel.rewind(at)
    assert kernel.value("woken") is None
    assert kernel.until("(Atomics.notify(shared, 0), woken)") == "ok"
