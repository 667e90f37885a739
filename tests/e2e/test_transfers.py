"""Transfers out of the sandbox, in the middle of which cells are checkpointed and rewound."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from _driver import eventually
from driver import Kernel
from test_network import Server, own_address, uplinks_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REWINDS = 50
CLIENTS = ("fetch", "agent", "websocket", "database")
ENDLESS = ("fetch", "websocket", "database")
"""Those that are always in the middle of something; `agent` may be between two requests."""

LIBRARIES = """
const http = require('node:http'), net = require('node:net');
const [host, port] = %s;
const page = (path) => `http://${host}:${port}${path}`;
globalThis.seen = {}; globalThis.lost = {}; globalThis.why = {};
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const transfers = {
  async fetch(tick) {
    for await (const piece of (await fetch(page('/endless'))).body) tick();
  },
  async agent(tick) {
    const answer = await new Promise((done, fail) => {
      http.get(page('/short'), { agent }, done).on('error', fail);
    });
    for await (const piece of answer) tick();
  },
  websocket: (tick) => new Promise((done, fail) => {
    const socket = new WebSocket(page('/socket').replace('http', 'ws'));
    socket.onmessage = tick;
    socket.onclose = () => fail(new Error('closed'));
  }),
  async database(tick) {
    const socket = net.connect(port, host);
    socket.write('q'.repeat(1 << 16));
    for await (const row of socket) { tick(); socket.write(row); }
    throw new Error('closed');
  },
};
for (const [name, transfer] of Object.entries(transfers)) {
  seen[name] = lost[name] = 0;
  (async () => {
    for (;;) {
      try {
        await transfer(() => { seen[name] += 1 });
      } catch (error) {
        lost[name] += 1;
        why[name] = error.cause?.code ?? error.code ?? error.message;
        await new Promise((done) => setTimeout(done, 10));
      }
    }
  })();
}
globalThis.goesOn = async () => {
  const before = { ...seen };
  const end = performance.now() + 20000;
  while (Object.keys(seen).some((name) => seen[name] < before[name] + 3)) {
    if (performance.now() > end) throw new Error(JSON.stringify({ before, seen, lost, why }));
    await new Promise((done) => setTimeout(done, 5));
  }
};
"""


class Transmitter(Server):
    """Talks HTTP, WebSocket and a protocol of its own, and never comes to an end."""

    def _echo(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # hung up on, as the tests want it
            while data := connection.recv(1 << 16):
                if not data.startswith(b"GET "):
                    connection.sendall(data)
                    time.sleep(0.002)
                    continue
                head = data.decode()
                path = head.split()[1]
                {"/endless": _endless, "/short": _short, "/socket": _socket}[path](connection, head)
        self.open -= 1


def _endless(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        time.sleep(0.005)


def _short(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 163840\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"x" * 8192)
        time.sleep(0.005)


def _socket(connection: socket.socket, head: str) -> None:
    found = re.search(r"(?i)sec-websocket-key: *(\S+)", head)
    assert found
    digest = hashlib.sha1(f"{found[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    connection.sendall(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    while True:
        connection.sendall(b"\x81\x05hello")
        time.sleep(0.005)


@pytest.fixture
def transmitter() -> Iterator[Transmitter]:
    server = Transmitter(own_address())
    yield server
    server.close()


@pytest.fixture
def full(start_kernel: Callable[..., Kernel]) -> Kernel:
    return start_kernel("--CRKernel.network=full")


def held(kernel: Kernel) -> dict[str, object]:
    """What could leak: descriptors, processes and connections, in the guest and around it, when
    what is done in the pause after a cell is done."""
    descriptors = "require('node:fs').readdirSync('/proc/self/fd').length"
    connections = (
        "require('node:fs').readFileSync('/proc/self/net/tcp', 'utf8').trim().split('\\n')"
    )
    inside = {
        "descriptors of the guest": kernel.value(descriptors),
        "connections": kernel.value(f"{connections}.length - 1"),
    }
    time.sleep(3)
    below = kernel.outside.children(recursive=True)
    return inside | {
        "descriptors of the kernel": psutil.Process(kernel.pid).num_fds(),
        "descriptors of the nest": below[0].num_fds(),
        "uplinks": len(uplinks_of(kernel)),
        "processes": len(below),
    }


def held_at_rest(kernel: Kernel) -> dict[str, object]:
    """The same when it does not change any more."""
    seen = [held(kernel)]
    while len(seen) < 2 or seen[-1] != seen[-2]:
        assert len(seen) < 10, seen
        seen.append(held(kernel))
    return seen[-1]


def test_fifty_rewinds_in_the_middle_of_transfers(full: Kernel, transmitter: Transmitter) -> None:
    """Each closes all connections, the libraries make new ones, and nothing is left over."""
    full.ok(LIBRARIES % json.dumps([transmitter.address, transmitter.port]))
    full.ok("await goesOn()")
    here = full.ok("await goesOn()").count
    lost = full.value("lost")
    assert lost == dict.fromkeys(CLIENTS, 0)
    left = None  # the branch that the next rewind leaves
    for turn in range(REWINDS):
        accepted = transmitter.accepted
        full.rewind(here)
        first = full.ok("await goesOn()").count
        now = full.value("lost")
        assert all(now[name] == lost[name] + 1 for name in ENDLESS), (turn, now, lost)
        assert lost["agent"] <= now["agent"] <= lost["agent"] + 1
        assert transmitter.accepted == accepted + len(CLIENTS)
        assert eventually(lambda: transmitter.open == len(CLIENTS), 10), transmitter.open
        last = full.ok("await goesOn()").count
        assert "✗" not in full.row(last)
        if left:
            full.ok("%forget {}..{}".format(*left))
        left = (first, last)
        if turn % 10 == 9:
            here, lost, left = last, full.value("lost"), None
        if turn == 9:
            before = held_at_rest(full)
            assert before["connections"] == len(CLIENTS)
    # Until all checkpoints are small there is one process more.
    assert eventually(lambda: held(full) == before, 60), f"{before}\n{held(full)}"
