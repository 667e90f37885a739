"""A front end for tests: runs cells in the installed kernel, over the wire that clients use."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import containers
import psutil
import pytest
from fake_engine import FakeEngine
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager

from crkernel import engines, registration
from crkernel.engines import Engine, Limits, outside
from crkernel.guest import linger

Json = dict[str, Any]
engine = "local"
"""Where sandboxes are: what pytest's option --engine says."""
SECONDS = 30.0
"""How long a test waits for anything that should take milliseconds: machines are slow and noisy."""


def open_engine(limits: Limits, name: str = "", secret: bytes | None = None) -> Engine:
    """One that has not started yet: of the engine that --engine says, or that is named."""
    name = name or engine
    if name == "fake":
        return FakeEngine(limits, secret)
    return engines.open_engine(name, limits, secret)


def kernel_name() -> str:
    """Under which name kernels are registered."""
    _kernelspec()
    return registration.name_for(engine)


def kernel_title() -> str:
    """What front ends call it."""
    return str(_kernelspec().display_name)


def require_network() -> None:
    """Skip a test of guests with a network where they can have none; in CI it has to fail."""
    if not outside.tun_is_open() and os.environ.get("CI") != "true":
        pytest.skip(f"/dev/net/tun is missing or closed to users; {outside.OPEN_TUN}")


def with_network(*arguments: str) -> list[str]:
    """A kernel's arguments, with one by which it has a network to give: the daemon of with-dockerd
    has the machine's alone."""
    named = any(argument.startswith("--CRKernel.docker_network") for argument in arguments)
    ours = ["--CRKernel.docker_network=host"] if engine == "docker" and not named else []
    return [*ours, *arguments]


def _kernelspec() -> KernelSpec:
    """That of this interpreter's environment; a test without one must fail, not skip."""
    name = registration.name_for(engine)
    folder = Path(sys.prefix, "share", "jupyter", "kernels")
    manager = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        raise AssertionError(f"{name} is not installed in {sys.prefix}: run make setup") from None
    assert Path(spec.argv[0]).resolve() == Path(sys.executable).resolve(), (
        f"the kernelspec in {folder} starts another Python, {spec.argv[0]}: run make setup"
    )
    return spec


@dataclass(repr=False)
class Result:
    """What one execute_request brought: the reply's content, and IOPub messages in their order."""

    code: str
    id: str
    reply: Json = field(default_factory=dict)
    messages: list[Json] = field(default_factory=list)
    seconds: float = 0.0

    def __repr__(self) -> str:
        shown = [(m["msg_type"], m["content"]) for m in self.messages]
        return f"<{self.code[:200]!r}: {str(self.reply)[:800]} {str(shown)[-2000:]}>"

    @property
    def status(self) -> str:
        """ok, error or aborted."""
        return str(self.reply["status"])

    @property
    def count(self) -> int:
        """The execution count of the reply."""
        return int(self.reply["execution_count"])

    @property
    def stdout(self) -> str:
        """All of it in one piece."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """All of it in one piece."""
        return self._stream("stderr")

    @property
    def results(self) -> list[Json]:
        """The bundles of execute_result messages."""
        return [content["data"] for content in self.contents("execute_result")]

    @property
    def displays(self) -> list[Json]:
        """The bundles of display_data messages."""
        return [content["data"] for content in self.contents("display_data")]

    @property
    def errors(self) -> list[Json]:
        """The contents of error messages."""
        return self.contents("error")

    @property
    def text(self) -> str:
        """The result as text; there must be exactly one."""
        (data,) = self.results
        return str(data["text/plain"])

    @property
    def shown(self) -> str:
        """What was displayed, as text."""
        return "\n".join(data["text/plain"] for data in self.displays)

    @property
    def error(self) -> str:
        """`ename: evalue` of the reply; it must be an error."""
        assert self.status == "error", f"{self.code!r} did not fail: {self}"
        return f"{self.reply['ename']}: {self.reply['evalue']}"

    @property
    def traceback(self) -> str:
        """The reply's traceback as one text."""
        return "\n".join(self.reply["traceback"])

    def contents(self, kind: str) -> list[Json]:
        """The contents of the messages of one type."""
        return [m["content"] for m in self.messages if m["msg_type"] == kind]

    def _stream(self, name: str) -> str:
        return "".join(c["text"] for c in self.contents("stream") if c["name"] == name)


class Kernel:
    """A kernel of its own process with a client; `log` is the file that takes its stderr."""

    def __init__(self, log: Path, *arguments: str) -> None:
        if "--CRKernel.network=full" in arguments:
            require_network()
        self.log = log
        self.manager = KernelManager(kernel_name=kernel_name())
        self._log = log.open("ab")  # stays open for a restart
        self.manager.start_kernel(
            stderr=self._log, stdout=self._log, extra_arguments=with_network(*arguments)
        )
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)
        self.cells = 0
        self._results: dict[str, Result] = {}
        self._idle: set[str] = set()

    # -- cells

    def submit(self, code: str, **options: Any) -> Result:
        """Send a cell without waiting; `finish` waits."""
        self.cells += 1
        message = self.client.execute(code, **options)
        return self.expect(code, message)

    def expect(self, code: str, message: str) -> Result:
        """Collect what a request brings that was sent by hand."""
        result = self._results[message] = Result(code, message)
        return result

    def finish(self, result: Result, timeout: float = SECONDS) -> Result:
        """Wait for the reply and for idle."""
        deadline = time.monotonic() + timeout
        while result.id not in self._idle:
            self._take_iopub(deadline, result)
        while not result.reply:
            reply = self._get(self.client.get_shell_msg, deadline, result)
            parent = reply["parent_header"].get("msg_id")
            if parent in self._results:
                self._results[parent].reply = reply["content"]
        return result

    def run(self, code: str, timeout: float = SECONDS, **options: Any) -> Result:
        """Run a cell to its end, however it ends."""
        began = time.monotonic()
        result = self.finish(self.submit(code, **options), timeout)
        result.seconds = time.monotonic() - began
        return result

    def ok(self, code: str, timeout: float = SECONDS) -> Result:
        """Run a cell that must not fail."""
        result = self.run(code, timeout)
        assert result.status == "ok", f"{code!r} failed:\n{result.traceback}\n{result.stderr}"
        return result

    def fails(self, code: str, timeout: float = SECONDS) -> Result:
        """Run a cell that must fail."""
        result = self.run(code, timeout)
        assert result.status == "error", f"{code!r} did not fail: {result}"
        return result

    def value(self, expression: str) -> Any:
        """The JSON value of an expression; promises are awaited."""
        code = f"display({{ v: await ({expression}) }}, {{ mime: 'application/json' }})"
        (data,) = self.ok(code).displays
        return data["application/json"].get("v")

    def until(self, condition: str) -> Any:
        """Wait, in the guest, until a condition holds there; returns its value."""
        return self.value(
            "(async () => { const end = performance.now() + 15000;"
            " for (;;) { const v = await (" + condition + "); if (v) return v;"
            " if (performance.now() > end) throw new Error('it never came true');"
            " await new Promise((r) => setTimeout(r, 5)); } })()"
        )

    def rewind(self, ref: object) -> Result:
        """`%rewind`, which must work."""
        return self.ok(f"%rewind {ref}")

    def row(self, key: object) -> str:
        """The line of a checkpoint in the timeline."""
        lines = self.ok("%timeline --all").shown.splitlines()
        found = [line for line in lines if re.search(rf"[○●] {re.escape(str(key))}(\s|$)", line)]
        assert found, "\n".join(lines)
        return found[-1]

    # -- messages

    def reply(self, kind: str, timeout: float = SECONDS) -> Json:
        """The content of the next reply of that type on the shell channel; others, such as those
        to the questions of a client that gets ready, are skipped."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._get(self.client.get_shell_msg, deadline, None)
            if message["msg_type"] == kind:
                content: Json = message["content"]
                return content

    def messages_until(
        self, result: Result, kind: str, text: str, timeout: float = SECONDS
    ) -> None:
        """Wait for a message of a cell, also after its idle, whose content holds `text`."""

        def has_come() -> bool:
            return any(text in json.dumps(content) for content in result.contents(kind))

        self.take_until(has_come, timeout, result)

    def take_until(
        self,
        condition: Callable[[], object],
        timeout: float = SECONDS,
        result: Result | None = None,
    ) -> None:
        """Take messages until a condition holds of them."""
        deadline = time.monotonic() + timeout
        while not condition():
            self._take_iopub(deadline, result)

    def control(self, kind: str, content: Json | None = None, timeout: float = SECONDS) -> Json:
        """Send a request on the control channel and return the reply's content."""
        message = self.client.session.msg(kind, content or {})
        self.client.control_channel.send(message)
        deadline = time.monotonic() + timeout
        while True:
            reply = self._get(self.client.get_control_msg, deadline, None)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                answer: Json = reply["content"]
                return answer

    def interrupt(self) -> Json:
        """interrupt_request and its reply."""
        return self.control("interrupt_request")

    def _take_iopub(self, deadline: float, result: Result | None) -> None:
        message = self._get(self.client.get_iopub_msg, deadline, result)
        parent = message["parent_header"].get("msg_id")
        if parent not in self._results:
            return
        if message["msg_type"] == "status":
            if message["content"]["execution_state"] == "idle":
                self._idle.add(parent)
            return
        self._results[parent].messages.append(message)

    def _get(self, get: Any, deadline: float, result: Result | None) -> Json:
        left = deadline - time.monotonic()
        try:
            message: Json = get(timeout=max(0.001, left))
        except Empty:
            alive = "it is alive" if self.manager.is_alive() else "it has died"
            log = self.log.read_text(errors="replace")[-3000:]
            raise AssertionError(
                f"no answer from the kernel ({alive}) to {result}\n{log}"
            ) from None
        return message

    # -- life

    @property
    def pid(self) -> int:
        """The process id of the kernel."""
        return int(self.manager.provisioner.process.pid)  # type: ignore[union-attr]

    @property
    def outside(self) -> psutil.Process:
        """The process below which all of its sandboxes are: its own, or its container's first."""
        if engine == "docker":
            return containers.main(self.container)
        return psutil.Process(self.pid)

    @property
    def container(self) -> Any:
        """With the engine docker: its one container."""
        return containers.named(linger.address(self.manager.session.key).decode().lstrip("\0"))

    def kill_guest(self) -> None:
        """End the live guest from outside, with SIGKILL: the newest, if a rewind is on its way."""
        for process in reversed(self.outside.children(recursive=True)):
            try:
                command = process.cmdline()
            except psutil.NoSuchProcess:
                continue
            if command[-1:] == ["/usr/lib/crkernel/guest/main.js"]:
                os.kill(process.pid, signal.SIGKILL)
                return

    def close(self) -> None:
        """Shut it down; it must obey."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=not self.manager.is_alive())
        self.manager.cleanup_resources()
        self.manager.context.destroy(linger=0)  # sockets that the manager leaves to the collector
        self._log.close()
