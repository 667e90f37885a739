"""ipykernel's application, with our kernel in it."""

import atexit
from typing import Any

from ipykernel.kernelapp import IPKernelApp

from crkernel.kernel import CRKernel


class App(IPKernelApp):
    """ipykernel's application without its thread for the shell channel, which is there for
    subshells: each message would go through it on its way in and out."""

    def init_control(self, context: Any) -> None:
        """Where the base class makes that thread."""
        super().init_control(context)  # type: ignore[no-untyped-call]
        self.shell_channel_thread = None

    def init_iopub(self, context: Any) -> None:
        """The base class has IOPub's thread stopped before `close`. What the control thread then
        still had to say, it would hand to nobody, for ever, and `close` would wait for it."""
        super().init_iopub(context)  # type: ignore[no-untyped-call]
        atexit.unregister(self.iopub_thread.stop)

    def close(self) -> None:
        """The control thread ends first: its last word, after a shutdown, goes out on IOPub."""
        if self.control_thread and self.control_thread.is_alive():
            self.control_thread.stop()
            self.control_thread.join()
        super().close()  # type: ignore[no-untyped-call]


def launch() -> None:
    """Serve until the kernel is shut down."""
    # Nothing is to be captured of this process's own stdout and stderr. With a capture, a shutdown
    # can take seconds: ipykernel's control thread then flushes to a thread that has just ended.
    App.launch_instance(kernel_class=CRKernel, outstream_class=None)
