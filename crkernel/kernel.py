"""Jupyter messages on one side, the session on the other; and the kernel's settings."""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import logging
import sys
from functools import partial
from typing import Any

from ipykernel._version import kernel_protocol_version
from ipykernel.kernelbase import Kernel
from traitlets import Instance, Union
from zmq.eventloop.zmqstream import ZMQStream

from crkernel import __version__
from crkernel.engines import Engine, open_engine
from crkernel.engines.limits import OF_THE_MACHINE
from crkernel.errors import CRKernelError, EngineUnavailable, UserError
from crkernel.history import History, history_file
from crkernel.javascript import JAVASCRIPT, language_info
from crkernel.lookup import Lookup
from crkernel.outcome import Outcome
from crkernel.request import Request, as_bug, as_error, as_failure
from crkernel.session import Session
from crkernel.settings import Settings
from crkernel.shell import Shell
from crkernel.sink import IOPubSink
from crkernel.stdin import Stdin

_INTERRUPT_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_EXIT_SECONDS = 3.0
"""How long threads may take to end after that."""
_SOON_SECONDS = 0.01
"""How long help while typing may take before it is told that the kernel is at it."""
_LOOKUPS = (b'"complete_request"', b'"inspect_request"', b'"is_complete_request"')


class CRKernel(Settings, Kernel):
    """A Jupyter kernel whose past is real."""

    implementation = "crkernel"
    implementation_version = __version__
    banner = f"crkernel {__version__}: JavaScript that can go back. %lsmagic lists the magics."
    help_links = [  # noqa: RUF012
        {"text": "Node.js", "url": "https://nodejs.org/docs/latest-v24.x/api/"}
    ]

    shell_stream = Union([Instance(Shell), Instance(ZMQStream)])
    _execute_sleep = 0.0
    """The base class waits before each reply, because what Python prints may be late. We flush."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        logging.getLogger("crkernel").parent = self.log
        self.notebook = Session(self._open_engine(), JAVASCRIPT)
        self._stdin = Stdin(self)
        self._lookup = Lookup(self.notebook, self.ready)
        self._history = History(history_file())
        for kind in ("comm_open", "comm_msg", "comm_close"):
            self.shell_handlers[kind] = self._on_comm
        for kind, handler in self.shell_handlers.items():
            if kind.endswith("_request"):
                self.shell_handlers[kind] = partial(self._answer, handler)
        self._running: Any = None  # the execute_request under way
        self._typed: set[str] = set()  # sessions of front ends where a person types
        self._started: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life

    def start(self) -> None:
        """Serve; the guest comes up meanwhile."""
        self.shell_stream = Shell.in_place_of(self.shell_stream)
        super().start()  # type: ignore[no-untyped-call]
        # Each message in a context of its own: the base class keeps one for all, in which a comm's
        # message that takes longer than the cell beside it would mix up the parents of both.
        self.shell_stream.on_recv(partial(self.shell_main, None))
        self._loop = self.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.iopub_socket.serve(self._loop)
        self._started = self._loop.create_task(self._start())

    def _open_engine(self) -> Engine:
        """The one that is set. If there is none such, any will do: it is never started."""
        secret = self.session.key if self.session else None
        try:
            engine = open_engine(self.engine, self.limits(), secret)
            if self.network not in engine.networks:
                hint = "set network to none, or take another engine"
                raise EngineUnavailable(f"{engine.name} gives guests no network", hint=hint)
            engine.network = self.network
            engine.pool = self.pool
            engine.docker_network = self.docker_network
            return engine
        except CRKernelError as error:
            self.misconfigured = error
            return open_engine("local", self.limits(), secret)

    async def _start(self) -> None:
        if self.misconfigured is not None:
            raise self.misconfigured
        await self.notebook.start()
        limits = self.notebook.engine.limits
        for name in OF_THE_MACHINE:  # another one's, perhaps
            setattr(self, name, getattr(limits, name))

    async def ready(self) -> None:
        """Wait until there is a guest; what kept it from starting may be mended meanwhile."""
        assert self._started is not None
        if self._started.done():
            if self._started.exception() is None:
                return
            self._started = asyncio.create_task(self._start())
        await asyncio.shield(self._started)

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """Called on the control thread; the session lives on the main one. Whatever goes wrong, the
        process ends; if it hangs, where it does is in the log."""
        assert self._loop is not None
        if sys.stderr is not None:
            faulthandler.dump_traceback_later(_CLOSE_SECONDS + _EXIT_SECONDS, exit=True)
        closing = asyncio.run_coroutine_threadsafe(self._close(restart), self._loop)
        end = asyncio.wrap_future(closing)
        if not (await asyncio.wait([end], timeout=_CLOSE_SECONDS))[0]:
            end.cancel()
            self.log.warning("the sandboxes took too long to end; they end with this process")
        elif end.cancelled() or end.exception() is not None:
            error = None if end.cancelled() else end.exception()
            self.log.error("the session did not end as it should", exc_info=error)
        return {"status": "ok", "restart": restart}

    async def _close(self, restart: bool) -> None:
        started = self._started
        if started is None or not started.done() or started.exception() is not None:
            restart = False  # there is no past to keep
            if started is not None:
                started.cancel()
        try:
            await self.notebook.close(restart=restart)
        except CRKernelError as error:
            self.log.warning("the past does not survive this restart: %s", error)
            await self.notebook.close()
        await asyncio.to_thread(self._history.close)

    @property
    def kernel_info(self) -> dict[str, Any]:
        """In place of the base class's, which imports a debugger (50 ms) to say if there is one."""
        return {
            "protocol_version": kernel_protocol_version,
            "implementation": self.implementation,
            "implementation_version": self.implementation_version,
            "language_info": self.language_info,
            "banner": self.banner,
            "help_links": self.help_links,
            "supported_features": [],
        }

    @property
    def language_info(self) -> dict[str, Any]:  # type: ignore[override]
        """JavaScript, and the version of the guest's Node once it has said hello."""
        return language_info(self.notebook.language_version or "24")

    async def create_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """There is one guest with one main thread; a cell beside the cell cannot be."""
        content = {
            "status": "error",
            "ename": "SubshellsNotSupported",
            "evalue": "this kernel has no subshells",
            "traceback": [],
        }
        assert self.session is not None
        self.session.send(socket, "create_subshell_reply", content, parent, ident)

    def _abort_queues(self, subshell_id: str | None = None) -> None:  # noqa: ARG002
        """Abort the cells that wait now. The base class, where no thread of its own reads the
        channel, aborts those that come up within one turn of the loop: the first."""
        self._aborting = True
        self.shell_stream.receive()
        self._end_of_abort = asyncio.ensure_future(self._stop_aborting())

    async def _stop_aborting(self) -> None:
        async with self._main_asyncio_lock:  # in line behind those that were just read
            self._aborting = False

    def pre_handler_hook(self) -> None:
        """The base class lets SIGINT raise in handlers here; interrupts come as messages."""

    def post_handler_hook(self) -> None:
        """See `pre_handler_hook`."""

    async def _answer(self, handler: Any, stream: Any, ident: Any, request: dict[str, Any]) -> None:
        """Have a request handled. If that fails, or its reply is one that cannot be sent, it is
        answered all the same: its client would wait for ever."""
        try:
            done = handler(stream, ident, request)
            if inspect.isawaitable(done):
                await done
        except Exception as error:
            self.log.exception("a request could not be answered")
            failed, kind = as_failure(error), request["header"]["msg_type"]
            if kind == "execute_request":
                asked = request["content"]
                if not asked.get("silent"):
                    self.send_response(self.iopub_socket, "error", failed)  # type: ignore[no-untyped-call]
                if asked.get("stop_on_error", True):
                    self._abort_queues()
                failed = failed | {"execution_count": self.execution_count}
            assert self.session is not None
            content = {"status": "error", **failed}
            self.session.send(
                stream, f"{kind.removesuffix('request')}reply", content, request, ident
            )

    # -- cells

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: dict[str, Any] | None = None,  # noqa: ARG002
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        """Run a cell: its magics, then its code. The checkpoint comes after the reply."""
        parent = self.get_parent("shell")  # type: ignore[no-untyped-call]
        ask = partial(self._stdin.ask, self._shell_parent_ident.get(), parent)
        typed = parent["header"].get("session") in self._typed
        audience = self.audience(cell_id, allow_stdin, typed)
        person = ask if allow_stdin else None
        sink = IOPubSink(self, parent, silent, person, audience, self.output_size)
        request = Request(self, sink, silent)
        line = self.execution_count
        self._running = parent
        try:
            outcome = await request.run(code, user_expressions or {})
        except CRKernelError as error:
            outcome = Outcome("error", error=as_error(error))
        except Exception as error:  # a bug of ours: the front end must get its reply all the same
            self.log.exception("crkernel failed")
            outcome = Outcome("error", error=as_bug(error))
        finally:
            self._running = None
        if store_history and not silent:
            self._history.record(line, code, outcome.text)
        return request.reply(outcome)

    async def do_history(
        self,
        hist_access_type: str,
        output: bool,
        raw: bool,  # noqa: ARG002  nothing is changed in what was typed
        session: int = 0,
        start: int = 0,
        stop: int | None = None,
        n: int | None = None,
        pattern: str | None = None,
        unique: bool = False,
    ) -> dict[str, Any]:
        """Cells of this session and of those before it."""
        history = self._history
        if hist_access_type == "tail":
            found = await history.tail(n, output=output)
        elif hist_access_type == "range":
            found = await history.range(session, start, stop, output=output)
        else:
            found = await history.search(pattern or "*", n, unique=unique, output=output)
        return {"status": "ok", "history": found}

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Stop the running cell; its state is kept. (Runs on the control thread.)"""
        assert self._loop is not None
        done = asyncio.run_coroutine_threadsafe(self.notebook.interrupt(), self._loop)
        content: dict[str, Any] = {"status": "ok"}
        try:
            await asyncio.wait_for(asyncio.wrap_future(done), _INTERRUPT_SECONDS)
        except TimeoutError:
            self.log.info("the cell has not reacted to the interrupt yet")
        except CRKernelError as error:
            content = {
                "status": "error",
                "ename": error.ename,
                "evalue": str(error),
                "traceback": [],
            }
        assert self.session is not None
        self.session.send(stream, "interrupt_reply", content, parent, ident=ident)

    # -- comms

    async def _on_comm(self, _stream: Any, _ident: Any, message: dict[str, Any]) -> None:
        """A message of a comm; it may come while a cell runs."""
        sink = IOPubSink(self, message, silent=False, room=self.output_size)
        try:
            await self.ready()
            await self.notebook.comm(message, sink)
        except CRKernelError as error:
            self.log.info("a message of a comm was lost: %s", error)
        sink.flush()

    async def comm_info_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Which comms are open; the base class would have a manager of Python comms."""
        wanted = parent["content"].get("target_name")
        targets = self.notebook.comms.items()
        comms = {n: {"target_name": t} for n, t in targets if wanted in (None, t)}
        assert self.session is not None
        content = {"status": "ok", "comms": comms}
        self.session.send(stream, "comm_info_reply", content, parent, ident)

    # -- help while typing

    async def shell_main(self, subshell_id: str | None, msg: list[Any]) -> None:
        """Help while typing comes at once, also beside a running cell; the rest waits its turn."""
        assert self.session is not None
        idents, frames = self.session.feed_identities(msg, copy=False)
        header = bytes(frames[1])  # type: ignore[arg-type]  # a zmq.Frame has a buffer
        if any(kind in header for kind in _LOOKUPS):
            await self._look_up(idents, frames)
        else:
            await super().shell_main(subshell_id, msg)

    async def _look_up(self, idents: list[bytes], frames: list[Any]) -> None:
        assert self.session is not None
        try:
            request = self.session.deserialize(frames, copy=False)
            handler = self.shell_handlers[request["header"]["msg_type"]]
            if request["header"]["msg_type"] == "is_complete_request":
                self._typed.add(str(request["header"].get("session")))
        except (ValueError, TypeError, KeyError) as error:
            self.log.error("Invalid message: %s", error)
            return
        status = partial(self._publish_status, channel="shell", parent=request)
        told = False

        def tell() -> None:
            nonlocal told
            if not told:
                told = True
                status("busy")

        # As a rule the answer is out before: who is told first would only take a processor from it.
        late = asyncio.get_running_loop().call_later(_SOON_SECONDS, tell)
        try:
            await handler(self.shell_stream, idents, request)
        except Exception:  # as the base class does: a malformed request must not end the loop
            self.log.exception("Exception in message handler")
        late.cancel()
        tell()
        status("idle")
        if self._running is not None:  # that idle was not the cell's
            self._publish_status("busy", "shell", self._running)  # type: ignore[no-untyped-call]

    async def do_complete(self, code: str, cursor_pos: int | None) -> dict[str, Any]:
        """What could stand at the cursor."""
        return await self._lookup.complete(code, cursor_pos, self.choices)

    async def do_inspect(
        self,
        code: str,
        cursor_pos: int,
        detail_level: int = 0,
        omit_sections: Any = (),  # noqa: ARG002
    ) -> dict[str, Any]:
        """What is known of the name under the cursor."""
        return await self._lookup.inspect(code, cursor_pos, detail_level, self.explanations)

    async def do_is_complete(self, code: str) -> dict[str, Any]:
        """Whether Enter runs the cell."""
        return await self._lookup.is_complete(code)

    def settings_changed(self) -> None:
        """For guests that are started from now on."""
        engine = self.notebook.engine
        engine.limits = self.limits()
        if self.network != engine.network:
            try:
                self.notebook.change_network(self.network)
            except UserError:
                self.network = engine.network
                raise
