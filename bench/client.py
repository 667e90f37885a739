"""A front end with a stopwatch: a kernel of its own process, and bare sockets to it.

The clients of jupyter_client poll and sleep while a kernel starts; here a message is seen when it
comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from jupyter_client.manager import KernelManager

from crkernel.errors import EngineError

OURS, BASELINE = "crkernel", "python3"
OF = {OURS: "crkernel", BASELINE: "ipykernel"}
"""Kernelspecs, and what tables call them."""

_PATIENCE_MS = 30_000
_RECONNECT_MS = 2
_SILENCE_MS, _LOST_MS = 20, 10_000


class SilentError(EngineError):
    """A kernel does not answer."""


@dataclass
class Run:
    """Milliseconds from a request to its reply, to its idle and to the last of its output; the
    reply; the texts displayed; how many characters were printed."""

    reply: float = 0.0
    idle: float = 0.0
    shown: float = 0.0
    printed: int = 0
    content: dict[str, Any] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


class Kernel:
    """A running kernel. `ready` and `first`: milliseconds from its start to the answer to
    kernel_info and to the result of the first cell. `arguments` go to its command line."""

    def __init__(self, name: str, first_cell: str = "1+1", arguments: Sequence[str] = ()) -> None:
        self.name = name
        self._first_cell = first_cell
        self._arguments = list(arguments)
        self.begin()

    def begin(self) -> None:
        """Start it; anew, after a `close`."""
        begin = time.perf_counter()
        self._manager = KernelManager(kernel_name=self.name)
        quiet = subprocess.DEVNULL
        self._manager.start_kernel(stdout=quiet, stderr=quiet, extra_arguments=self._arguments)
        self._session = self._manager.session
        self._poller = zmq.Poller()
        self._shell = self._connect(zmq.DEALER, "shell_port")
        self._iopub = self._connect(zmq.SUB, "iopub_port")
        try:
            self._wait_until_heard()
            self.ready = 1e3 * (time.perf_counter() - begin)
            self.run(self._first_cell)
        except BaseException:  # an interrupt, say: nobody else knows of it yet
            self.close()
            raise
        self.first = 1e3 * (time.perf_counter() - begin)

    @property
    def pid(self) -> int:
        """Of the kernel's process."""
        return int(self._manager.provisioner.pid)  # type: ignore[union-attr]

    def run(self, code: str, quiet: float = 0.0) -> Run:
        """Execute one cell; raises EngineError if it fails, SilentError if no answer comes. For a
        kernel whose output comes after its idle, or that loses its idle in much output: with
        `quiet`, wait for the reply, and then until so many seconds have brought nothing."""
        return self.run_all([code], quiet)[0]

    def run_all(self, codes: Sequence[str], quiet: float = 0.0) -> list[Run]:
        """Execute cells that are all sent at once; returns when the last is idle."""
        contents = [{"code": code, "store_history": True} for code in codes]
        return self._ask("execute_request", contents, quiet)

    def complete(self, code: str) -> Run:
        """Ask for completions at the end of `code`."""
        return self._ask("complete_request", [{"code": code, "cursor_pos": len(code)}])[0]

    def close(self) -> None:
        """Shut it down, and end what is left of its processes."""
        for socket in (self._shell, self._iopub):
            socket.close(linger=0)
        group = self.pid  # each kernel is the leader of a session of its own
        try:
            self._manager.shutdown_kernel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def _ask(self, kind: str, contents: Sequence[dict[str, Any]], quiet: float = 0.0) -> list[Run]:
        begin = time.perf_counter()
        runs: dict[str, Run] = {}
        for content in contents:
            message = self._session.send(self._shell, kind, content)
            runs[message["header"]["msg_id"]] = Run()
        ends = ("reply",) if quiet else ("reply", "idle")
        waiting = {(key, end) for key in runs for end in ends}
        while waiting or self._poller.poll(int(1e3 * quiet)):
            for socket, message in self._messages(_PATIENCE_MS):
                now = 1e3 * (time.perf_counter() - begin)
                key = message["parent_header"].get("msg_id")
                if key not in runs:
                    continue
                run, content = runs[key], message["content"]
                if socket is self._shell:
                    run.reply, run.content = now, content
                    waiting.discard((key, "reply"))
                elif message["msg_type"] != "status":
                    run.shown = now
                    run.printed += len(content.get("text", ""))
                    run.texts.append(content.get("data", {}).get("text/plain", ""))
                elif content["execution_state"] == "idle":
                    run.idle = now
                    waiting.discard((key, "idle"))
        for run in runs.values():
            if run.content["status"] != "ok":
                why = run.content.get("evalue", run.content["status"])
                raise EngineError(f"{self.name}: a cell of the benchmark failed: {why}")
        return list(runs.values())

    def _messages(self, milliseconds: int) -> Iterator[tuple[zmq.Socket[bytes], dict[str, Any]]]:
        """What there is now, or comes first. Raises SilentError if nothing comes."""
        ready = self._poller.poll(milliseconds)
        if not ready:
            raise SilentError(f"{self.name} is silent", hint="run: crkernel doctor")
        for socket, _ in ready:
            _, message = self._session.recv(socket)
            if message is not None:
                yield socket, message

    def _wait_until_heard(self) -> None:
        """Until kernel_info is answered and IOPub is heard, which may connect a little later. What
        a kernel has lost while it came up is asked again."""
        heard: set[zmq.Socket[bytes]] = set()
        deadline = time.monotonic() + _PATIENCE_MS / 1e3
        self._session.send(self._shell, "kernel_info_request", {})
        while len(heard) < 2:
            patience = _SILENCE_MS if heard else _LOST_MS
            try:
                heard |= {socket for socket, _ in self._messages(patience)}
            except SilentError:
                if time.monotonic() > deadline:
                    raise
                self._session.send(self._shell, "kernel_info_request", {})

    def _connect(self, kind: int, port: str) -> zmq.Socket[bytes]:
        info: dict[str, Any] = {**self._manager.get_connection_info()}
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.setsockopt(zmq.RCVHWM, 0)  # nothing is dropped here
        socket.connect(f"{info['transport']}://{info['ip']}:{info[port]}")
        self._poller.register(socket, zmq.POLLIN)
        return socket


@contextlib.contextmanager
def kernels(*names: str) -> Iterator[list[Kernel]]:
    """Kernels of these specs for the time of a block."""
    started: list[Kernel] = []
    try:
        for name in names:
            started.append(Kernel(name))
        yield started
    finally:
        with contextlib.ExitStack() as stack:  # one that does not end keeps no other from it
            for kernel in started:
                stack.callback(kernel.close)
