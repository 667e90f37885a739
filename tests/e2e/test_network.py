"""`network`: nothing by default; with `full` what this machine reaches, rewinds and all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import containers
import driver
import psutil
import pytest
from _driver import descendants, eventually
from driver import Kernel

pytestmark = pytest.mark.e2e

Start = Callable[..., Kernel]


class Server:
    """Takes connections on an address of this machine, echoes, and answers HTTP."""

    def __init__(self, address: str) -> None:
        self.accepted = 0
        self.open = 0
        self.peers: set[str] = set()
        self._listener = socket.create_server((address, 0))
        self.address, self.port = self._listener.getsockname()[:2]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, (peer, _) = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.peers.add(peer)
            self.open += 1
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    http = data.startswith(b"GET ")
                    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
                    connection.sendall(answer if http else data)
            except OSError:
                pass  # the other side is gone, which is what some tests want
        self.open -= 1

    def close(self) -> None:
        """Take no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def own_address() -> str:
    """One of this machine that is not its loopback."""
    addresses = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    assert addresses, "the machine has no network of its own"
    return addresses[0]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(own_address())
    yield server
    server.close()


@pytest.fixture
def local() -> Iterator[Server]:
    """One that only this machine shall reach."""
    server = Server("127.0.0.1")
    yield server
    server.close()


@pytest.fixture(scope="module")
def _full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("network")
    kernel = Kernel(folder / "kernel.log", "--CRKernel.network=full")
    yield kernel
    kernel.close()


@pytest.fixture
def full(_full: Kernel) -> Kernel:
    """A kernel whose guests have a network, with a fresh one."""
    _full.ok("%reset")
    return _full


def get(server: Server) -> str:
    """JavaScript that fetches a page."""
    return f"(await fetch('http://{server.address}:{server.port}/')).text()"


def connect(server: Server) -> str:
    """JavaScript that opens `sock`; `say` sends a line and waits for it to come back."""
    return (
        "globalThis.failed = null;"
        f"globalThis.sock = require('node:net').connect({server.port}, '{server.address}');"
        "await new Promise((done, fail) => sock.on('connect', done).on('error', fail));"
        "sock.on('error', (error) => { failed = error.code });"
        "globalThis.say = (text) => new Promise((done) => {"
        " sock.once('data', (data) => done(`${data}`)); sock.write(text) })"
    )


def test_by_default_there_is_none(kernel: Kernel, server: Server) -> None:
    before = server.accepted
    for address in (server.address, "8.8.8.8", "example.org"):
        result = kernel.fails(f"await fetch('http://{address}:{server.port}/')")
        assert "hint: this guest has no network" in result.traceback
    kernel.fails("await require('node:dns').promises.lookup('registry.npmjs.org')")
    assert "hint" not in kernel.fails("await fetch('http://127.0.0.1:1/')").traceback
    assert kernel.value("Object.keys(require('node:os').networkInterfaces())") == ["lo"]
    kernel.ok("%config network = full")
    result = kernel.fails("await fetch('http://8.8.8.8/')")
    assert "hint: this guest has no network" in result.traceback, "it came up before"
    kernel.ok("%config network = none")
    assert server.accepted == before


def test_with_a_network_servers_can_be_reached(full: Kernel, server: Server) -> None:
    assert full.value(get(server)) == "hello"
    assert full.value("(await require('node:dns').promises.lookup('registry.npmjs.org')).family")
    assert full.value("(await require('node:dns').promises.resolve4('registry.npmjs.org')).length")


def test_a_connection_lives_on_across_checkpoints(full: Kernel, server: Server) -> None:
    full.ok(connect(server))
    for text in ("one", "two", "three"):
        result = full.ok(f"await say('{text}')")
        assert result.text == f"'{text}'"
        assert "✗" not in full.row(result.count)
    assert full.value("failed") is None
    assert full.value("failed") is None


def test_a_transfer_goes_on_while_cells_run(full: Kernel, server: Server) -> None:
    """CRIU once took what waited to be sent for sent, and what had come for acknowledged."""
    size = 32 << 20
    full.ok(connect(server))
    full.ok(
        "globalThis.read = 0; sock.on('data', (data) => { read += data.length });"
        f"sock.write('x'.repeat({size})); 0"
    )
    deadline = time.monotonic() + 60
    while full.value("read") < size:  # each a cell, with a checkpoint in the middle of it
        assert full.value("failed") is None
        assert time.monotonic() < deadline, "the transfer stands still"


def test_checkpoints_are_taken_with_queues_full(full: Kernel, server: Server) -> None:
    full.ok(connect(server))
    held = full.ok(
        "sock.pause(); sock.write('x'.repeat(32 << 20));"
        "await new Promise((done) => setTimeout(done, 300))"
    ).count
    assert "✗" not in full.row(held)
    full.rewind(held)
    full.ok("sock.resume(); 0")
    assert full.until("failed") == "ECONNRESET"


def test_a_rewind_resets_what_leads_out_and_nothing_else(full: Kernel, server: Server) -> None:
    full.ok(
        "const inner = require('node:net').createServer((s) => s.pipe(s));"
        "await new Promise((done) => inner.listen(0, '127.0.0.1', done));"
        "const within = require('node:net').connect(inner.address().port, '127.0.0.1');"
        "await new Promise((done) => within.on('connect', done))"
    )
    full.ok(connect(server))
    there = full.ok("await say('before')").count
    full.ok("globalThis.later = true")
    full.rewind(there)
    assert full.until("failed") == "ECONNRESET"
    assert eventually(lambda: server.open == 0, 10)
    full.ok(
        "await new Promise((done) => { within.once('data', done); within.write('still here') })"
    )
    full.ok(connect(server))
    assert full.ok("await say('again')").text == "'again'"


def test_client_libraries_connect_anew_by_themselves(full: Kernel, server: Server) -> None:
    there = full.ok(f"await {get(server)}").count
    assert full.value(get(server)) == "hello"
    for _ in range(3):
        full.rewind(there)
        assert full.value(get(server)) == "hello"


def test_the_loopback_of_the_host_is_out_of_reach(full: Kernel, local: Server) -> None:
    for address in ("127.0.0.1", "10.0.2.2", "10.0.2.3", "10.0.2.100", "localhost", "0.0.0.0"):
        limit = "{ signal: AbortSignal.timeout(1000) }"
        full.run(f"await fetch('http://{address}:{local.port}/', {limit})")
    assert local.accepted == 0


def test_nothing_reaches_in(full: Kernel) -> None:
    port = full.value(
        "new Promise((done) => { const s = require('node:net').createServer().listen(0,"
        " '0.0.0.0', () => done(s.address().port)) })"
    )
    for address in ("127.0.0.1", own_address()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), 2)


def test_the_guest_has_no_right_over_its_network(full: Kernel) -> None:
    run = "require('node:child_process').spawnSync('ip', ['link', 'set', 'tap0', 'down'])"
    assert full.value(f"{run}.status") != 0
    assert full.value("require('node:fs').readdirSync('/dev/net')") == []


def test_it_can_be_set_while_the_kernel_runs(fresh_kernel: Kernel, server: Server) -> None:
    driver.require_network()
    kernel = fresh_kernel
    kernel.ok("%config network = full\n%reset")
    assert kernel.value(get(server)) == "hello"
    assert "full" in kernel.ok("%status").shown
    held = kernel.ok(connect(server)).count
    kernel.ok("%config network = none")
    assert "%config network = full" in kernel.fails(f"%rewind {held}").error
    assert kernel.value("failed") is None
    kernel.ok("%reset")
    kernel.fails(f"await {get(server)}")
    kernel.ok("%config network = full")
    kernel.rewind(held)
    assert kernel.until("failed") == "ECONNRESET"


def test_a_restart_gives_a_network_again(start_kernel: Start, server: Server) -> None:
    kernel = start_kernel("--CRKernel.network=full")
    held = kernel.ok(connect(server)).count
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)
    assert kernel.value(get(server)) == "hello"
    kernel.rewind(f"r1.{held}")
    assert kernel.until("failed") == "ECONNRESET"
    assert kernel.value(get(server)) == "hello"


def test_other_values_are_explained(kernel: Kernel, start_kernel: Start) -> None:
    result = kernel.fails("%config network = foo")
    assert result.error == "UserError: network cannot be 'foo': it takes none or full"
    wrong = start_kernel("--CRKernel.network=foo")
    assert "network cannot be 'foo'" in wrong.fails("1").error


def _pipes(pid: int) -> int:
    """Bytes of the buffers of all pipes that a process has both ends of."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if str(link.readlink()).startswith("pipe:"):
            descriptor = os.open(link, os.O_RDWR | os.O_NONBLOCK)
            total += fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
            os.close(descriptor)
    return total // 2


def test_room_for_pipes_is_left_to_guests(full: Kernel) -> None:
    """Linux counts it by user; what is used up a restore cannot have."""
    here = full.ok("globalThis.x = 1").count
    time.sleep(2)  # it fills its pool after it has come up
    uplinks = uplinks_of(full)
    assert uplinks
    assert all(_pipes(pid) < 4 << 20 for pid in uplinks)
    full.rewind(here)


def uplinks_of(kernel: Kernel) -> list[int]:
    """In Docker below the first process of a container that is not the one of the sandboxes."""
    tops = [kernel.pid]
    if driver.engine == "docker":
        tops += [containers.main(one).pid for one in containers.of(kernel.pid)]
    found = []
    for child in (below for top in tops for below in descendants(top)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "pasta" in psutil.Process(child).name():
                found.append(child)
    return found


def test_a_lost_way_out_is_replaced_and_told(full: Kernel, server: Server) -> None:
    held = full.ok("globalThis.x = 1;" + connect(server))
    assert "lost" not in full.ok("%status").shown
    assert eventually(lambda: len(uplinks_of(full)) == 2, 10)  # the present, and the spare
    time.sleep(3)  # one that ends at once is not replaced
    for pid in uplinks_of(full):
        os.kill(pid, signal.SIGKILL)
    full.messages_until(held, "stream", "way to the network was lost: pasta was ended by signal 9")
    assert eventually(lambda: len(uplinks_of(full)) == 2, 10)
    assert full.value(get(server)) == "hello"
    full.ok("sock.write('there?'); 0")
    assert full.until("failed") == "ECONNRESET"
    assert "full, last lost: pasta was ended by signal 9" in full.ok("%status").shown
    full.rewind(held.count)  # into a spare that has lost its own
    assert full.value(get(server)) == "hello"


def test_one_that_ends_at_once_is_not_replaced_but_told(full: Kernel, server: Server) -> None:
    full.ok("%reset")
    deadline = time.monotonic() + 10
    while not (result := full.ok("1")).stderr and time.monotonic() < deadline:
        for pid in uplinks_of(full):
            os.kill(pid, signal.SIGKILL)
    assert "; %reset makes another" in result.stderr
    full.fails(f"await {get(server)}")
    full.ok("%reset")
    assert full.value(get(server)) == "hello"


def test_nothing_of_it_outlives_a_sandbox_or_the_kernel(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "kernel.log", "--CRKernel.network=full")
    try:
        here = kernel.ok("globalThis.x = 1").count
        for _ in range(3):
            kernel.rewind(here)
        assert eventually(lambda: len(uplinks_of(kernel)) == 2, 10)  # the present, and the spare
        uplinks = uplinks_of(kernel)
        os.kill(kernel.pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(psutil.pid_exists, uplinks)), 10)
    finally:
        kernel.close()
