"""A sandbox that is made before a kernel asks for it, with the guest of a golden root in it.

Until then the nest speaks with its supervisor as a kernel would. The kernel's stream takes the
place of that, and nobody can tell it from a sandbox that was made on the spot.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

from . import golden, golden_store, wire
from .link import Berth, Channel

_SECONDS = 30.0
_CHUNK = 1 << 16
_STDERR = 2

Json = dict[str, Any]


class Warm:
    """Answers one request for a sandbox, which was known beforehand."""

    def __init__(self, request: Json, fork: Callable[[Channel, Json], int]) -> None:
        """`fork` makes the sandbox. If this fails, it has to be ended. Raises OSError, ValueError;
        LookupError if there is no such golden root."""
        self._request = request
        name = str(request["golden"])
        held = _hold(name)
        if held is None:
            raise LookupError(f"there is no golden root {name}")
        self._golden = held
        self._link, theirs = socket.socketpair()
        self._link.settimeout(_SECONDS)
        try:
            with theirs:
                self.pid = fork(Berth(theirs), request)
            restored = self._ask({"op": "restore", "name": name, "twin": False})
        except BaseException:
            self.drop()
            raise
        self._guest = {"hello": restored["hello"], "seconds": restored["seconds"]}

    def suits(self, request: Json) -> bool:
        """Whether it is what is asked for, and its golden root the one that is there."""
        known = {name: value for name, value in request.items() if name in self._request}
        return known == self._request and self._is_of_the_root_that_is_there()

    def is_stale(self) -> bool:
        """Whether it is of no use by now: its guest has ended, or done something by itself, or
        kernels start from another golden root."""
        return self._has_moved() or not self._is_of_the_root_that_is_there()

    def _has_moved(self) -> bool:
        """Whether the supervisor has anything to say."""
        return bool(select.select([self._link], [], [], 0)[0])

    def _is_of_the_root_that_is_there(self) -> bool:
        name = self._request["golden"]
        if golden_store.is_spoiled(golden.FOLDER, name.removeprefix(golden.PREFIX)):
            return False
        with contextlib.suppress(OSError):
            return os.path.samestat(os.stat(golden.folder(name)), os.fstat(self._golden))
        return False

    def move(self, channel: Channel) -> Json | None:
        """Let it speak by `channel` from here on. Its process id and what its guest said of itself;
        None if it is of no use: the guest has ended, or done something by itself."""
        if self._has_moved():
            return None
        with contextlib.suppress(OSError, ValueError):
            self._ask({"op": "move"}, [_STDERR, *channel.descriptors])
            self._link.close()  # the golden root stays held: the guest needs its memory
            return {"pid": self.pid, "guest": self._guest}
        return None

    def drop(self) -> None:
        """It is of no use; who made it ends its sandbox."""
        self._link.close()
        os.close(self._golden)

    def _ask(self, request: Json, descriptors: Sequence[int] = ()) -> Json:
        """The supervisor's answer, which has to be the first that comes."""
        socket.send_fds(self._link, [wire.pack({"id": 1, **request})], list(descriptors))
        decoder = wire.Decoder()
        while data := self._link.recv(_CHUNK):
            for body in decoder.feed(data):
                answer = wire.parse(body)
                if "id" not in answer or "error" in answer:
                    raise ValueError(f"{request['op']}: {answer}")
                return answer
        raise ConnectionResetError(f"{request['op']}: the supervisor has ended")


def _hold(name: str) -> int | None:
    """As `golden_store.hold`, where a damaged one is another's to remove."""
    key = name.removeprefix(golden.PREFIX)
    if golden_store.is_spoiled(golden.FOLDER, key):
        return None
    return golden_store.hold(golden.FOLDER, key, needed=True)
