"""A nest on its kernel's own machine that was started before it, and waits at a socket with a name.

The name lies in a folder that only its user can enter. It serves one kernel, ever: the first that
comes in time. From then on it lives and dies with that one, as every nest does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from . import wire
from .enter import CONTROL_FD
from .greeting import CLAIM, peer
from .link import SocketLink
from .nest import Nest, furnish

_SECONDS = 1.0  # for who has come to say so
_RECORD = "/etc/crkernel-image.json"
"""A file of the image: while that is there, the image is."""


def main() -> None:
    """Serve until the kernel is gone, or none has come in time."""
    config = json.loads(sys.argv[1])
    furnish()
    nest = WaitingNest(socket.socket(fileno=CONTROL_FD), by_root=config["by_root"])
    tend = partial(nest.tend, config["warm"])
    if nest.await_kernel(float(config["patience"]), tend, float(config["tending"])):
        nest.serve()


class WaitingNest(Nest):
    """`listener` has its name, but takes nobody yet. Who comes has to be the user who had this
    started, which was root if it was `by_root`."""

    def __init__(self, listener: socket.socket, *, by_root: bool) -> None:
        super().__init__(None)
        self._listener = listener
        self._user = _overflow_uid() if by_root else 0  # as this user namespace sees it

    def await_kernel(self, seconds: float, tend: Callable[[], None], every: float) -> bool:
        """Whether one has come within so many seconds. An image that goes ends the wait. Meanwhile
        it does `tend`, which takes a moment, at once and after every so many, or when somebody has
        looked."""
        deadline = time.monotonic() + seconds
        tend()
        self._listener.listen()  # who finds no room takes this for one that has ended
        with self._listener:
            while self._link is None and os.path.exists(_RECORD):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._listener.settimeout(min(left, every))
                with contextlib.suppress(OSError):  # timed out, or somebody left again
                    self._take(self._listener.accept()[0])
                if self._link is None:
                    tend()
        return self._link is not None

    def _take(self, control: socket.socket) -> None:
        """A kernel says so, and where complaints go; who says nothing has only looked."""
        control.settimeout(_SECONDS)
        said, descriptors, _, _ = socket.recv_fds(control, len(CLAIM), 1)
        if said == CLAIM and len(descriptors) == 1 and peer(control)[1] == self._user:
            for number in (1, 2):
                os.dup2(descriptors[0], number)
            control.settimeout(None)
            self.connect(SocketLink(control))
            self.answer({"ready": wire.PROTOCOL})
        else:
            control.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def leave(self) -> None:
        """Also the socket with the name."""
        super().leave()
        self._listener.close()


def _overflow_uid() -> int:
    """What stands for users that a namespace has none for."""
    with open("/proc/sys/kernel/overflowuid") as file:
        return int(file.read())
