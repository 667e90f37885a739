"""A child of the nest that does a chore and stays a while for the next one of its kind.

In a row of cells, and in the pause after it, one checkpoint after the other is made small. To fork
the nest for each, with the pages that a child has to copy before it has done anything, would take
as much of a processor as that itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from functools import partial

from .chores import Json
from .link import receive, send

_SECONDS = 1.0


class Stay:
    """The nest's end of it. `fork` makes a child that does something and never returns, `prepare`
    is what it does first, `do` is what it does with each request. It tells by itself how that went;
    one that ends badly does not, nor does it of the request that it was given just then."""

    def __init__(
        self,
        fork: Callable[[Callable[[], None]], int],
        prepare: Callable[[], None],
        do: Callable[[Json], None],
    ) -> None:
        self._fork = fork
        self._prepare = prepare
        self._do = do
        self._control: socket.socket | None = None
        self._pid = 0

    def give(self, request: Json) -> int:
        """Have it done by the child that stays, or by a new one; its process id."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                send(self._control, request)
                return self._pid
            self.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = self._fork(partial(self._stay, theirs, request))
        theirs.close()
        return self._pid

    def close(self) -> None:
        """No more come for the child that stays."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def _stay(self, requests: socket.socket, first: Json) -> None:
        self.close()
        self._prepare()
        request: Json | None = first
        while request is not None:
            self._do(request)
            request = _next(requests)
        os._exit(0)


def _next(requests: socket.socket) -> Json | None:
    """The next request; None if there is none for so long."""
    if not select.select([requests], [], [], _SECONDS)[0]:
        requests.shutdown(socket.SHUT_RD)  # who sends from here on is told; what came is done yet
    received = receive(requests, 0)
    return received and received[0]
