"""ipykernel's application, with our kernel in it."""

from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp

from crkernel import allocator
from crkernel.iopub import IOPub
from crkernel.kernel import CRKernel
from crkernel.packing import Packing

_LINGER_MS = 1000
"""What IOPub has left to send when the kernel ends may take so long; as in the base class."""
_MOST_WAITING = 100_000
"""Messages on IOPub for a client that is slow to take them. ZMQ drops what is more, and with its
own 1000 a cell that shows many things at once would lose some of them, and its idle."""


class App(IPKernelApp):
    """ipykernel's application without its threads for two channels: for the shell channel, which is
    there for subshells, and for IOPub. Each message would have to change threads."""

    def _session_default(self) -> Packing:
        return Packing(parent=self)

    def init_control(self, context: Any) -> None:
        """Where the base class makes that thread."""
        super().init_control(context)  # type: ignore[no-untyped-call]
        self.shell_channel_thread = None

    def init_iopub(self, context: Any) -> None:
        """As the base class does, but that the main thread keeps the socket."""
        socket = context.socket(zmq.XPUB)
        socket.linger = _LINGER_MS
        socket.sndhwm = _MOST_WAITING
        self.iopub_socket = IOPub(socket, self.session)  # closed by `close`, or the end would hang
        self._apply_curve_server_options(socket)
        self.iopub_port = self._bind_socket(socket, self.iopub_port)  # type: ignore[no-untyped-call]
        self.configure_tornado_logger()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """The control thread ends first: its last word, after a shutdown, goes out on IOPub."""
        if self.control_thread and self.control_thread.is_alive():
            self.control_thread.stop()
            self.control_thread.join()
        if self.iopub_socket:
            self.iopub_socket.close()
        super().close()  # type: ignore[no-untyped-call]


def launch() -> None:
    """Serve until the kernel is shut down."""
    allocator.keep_freed()
    # Nothing is to be captured of this process's own stdout and stderr. With a capture, a shutdown
    # can take seconds: ipykernel's control thread then flushes to a thread that has just ended.
    App.launch_instance(kernel_class=CRKernel, outstream_class=None)
