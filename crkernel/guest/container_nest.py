"""The nest in a container: reached by gates, in place of a socket that its parent made.

It serves one kernel, ever: the first that comes in time, and after `linger` the one that knows the
secret. It keeps golden roots itself, in the folder that the container's engine mounts for them.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from . import golden_store, linger, processor, wire
from .chores import Json
from .enter import CONTROL_FD, GOLDEN, MEMORY_EVENTS_FD, oom_kills
from .gate import Arrival
from .link import Channel, GateLink, SocketLink, write_all
from .nest import Nest, furnish


def main() -> None:
    """Serve until the kernel is gone, or none has come in time."""
    config = json.loads(sys.argv[1])
    furnish()
    nest = ContainerNest(socket.socket(fileno=CONTROL_FD))
    tend = partial(nest.tend, config["warm"])
    if nest.await_first(float(config["patience"]), tend, float(config["tending"])):
        nest.serve()


class ContainerNest(Nest):
    """Takes the gates that come to `listener`."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(None)
        self._listener = listener
        self._kills = oom_kills()
        self._parked: dict[str, Arrival] = {}  # streams that no request has named yet
        self._kernel: str | None = None  # what the one that is served calls itself
        self._held: dict[str, int] = {}  # descriptors that hold golden roots, by their keys
        self._selector.register(listener, selectors.EVENT_READ, self._on_arrival)

    def await_first(self, seconds: float, tend: Callable[[], None], every: float) -> bool:
        """Whether a kernel has come within so many seconds. Meanwhile it does `tend`, which takes a
        moment, at once and after every so many in which nothing happens."""
        deadline = time.monotonic() + seconds
        tend()
        while self._link is None and (left := deadline - time.monotonic()) > 0:
            ready = self._selector.select(min(left, every))
            for key, _ in ready:
                key.data()
            if not ready:
                tend()
        return self._link is not None

    def _on_arrival(self) -> bool:
        with contextlib.suppress(OSError, ValueError):  # it left again, or is no gate
            arrival = Arrival(self._listener)
            self._take(arrival, arrival.greeting)
        return True

    def _take(self, arrival: Arrival, greeting: Json) -> None:
        if "ticket" in greeting and self._kernel in (None, greeting.get("kernel")):
            self._parked[greeting["ticket"]] = arrival
            write_all(arrival.writer, wire.pack({"parked": greeting["ticket"]}))
        elif "ticket" not in greeting and self._link is None:
            self.connect(GateLink(arrival))
            self._belong_to(greeting.get("kernel"))
            self.answer(self._ready())
        else:
            arrival.close()

    def _belong_to(self, kernel: str | None) -> None:
        """Be this kernel's from now on: streams that others parked are hung up on."""
        self._kernel = kernel
        for ticket, arrival in list(self._parked.items()):
            if arrival.greeting.get("kernel") != kernel:
                self._parked.pop(ticket).close()

    def _ready(self) -> Json:
        for key in golden_store.keys(GOLDEN):
            self._hold(key)
        return {
            "ready": wire.PROTOCOL,
            "pid": os.getpid(),
            "golden": [k for k in sorted(self._held) if not golden_store.is_spoiled(GOLDEN, k)],
            "machine": processor.identity(),
        }

    def await_heir(self, request: Json) -> SocketLink | GateLink | None:
        """The next kernel comes by a gate that knows the token."""
        self.answer({"id": request["id"]})
        deadline = time.monotonic() + linger.SECONDS
        while (left := deadline - time.monotonic()) > 0:
            self._listener.settimeout(left)
            try:
                arrival = Arrival(self._listener)
            except (OSError, ValueError):
                continue  # timed out, or it was no gate
            token = str(arrival.greeting.get("token")).encode()
            if hmac.compare_digest(token, request["token"].encode()):
                self._listener.settimeout(None)
                self._belong_to(arrival.greeting.get("kernel"))
                return GateLink(arrival)
            arrival.close()
        return None

    def welcome(self, request: Json, _descriptors: list[int]) -> None:
        """What is left for the next kernel came in the request."""
        self.answer(self._ready() | {"state": request["state"]})

    @contextlib.contextmanager
    def channel(self, request: Json, _descriptors: list[int]) -> Iterator[Channel]:
        """The stream that is parked under the request's ticket."""
        arrival = self._parked.pop(request["ticket"])
        try:
            yield Channel(arrival.reader, arrival.writer, arrival.gate)
        finally:
            arrival.close()

    def link_up(self, pid: int, nameserver: str) -> None:
        """Here the kernel has an annex do it: there is no network."""

    def leave(self) -> None:
        """Also the listener and whatever is parked."""
        super().leave()
        os.close(MEMORY_EVENTS_FD)
        self._listener.close()
        for arrival in self._parked.values():
            arrival.close()

    def operate(self, request: Json, descriptors: list[int]) -> Json | None:
        """Golden roots are held and removed by the nest here, and it knows the control group."""
        if request["op"] == "starved":
            before, self._kills = self._kills, oom_kills()
            return {"starved": self._kills > before}
        if request["op"] == "hold":
            golden_store.touch(GOLDEN, request["key"])
            return {"held": self._hold(request["key"])}
        if request["op"] == "discard":
            os.close(self._held.pop(request["key"]))
            return {"gone": golden_store.remove_unused(f"{GOLDEN}/{request['key']}")}
        if request["op"] == "spoil":
            golden_store.spoil(GOLDEN, request["key"])
            return {}
        return super().operate(request, descriptors)

    def hand_golden(self, request: Json, files: dict[str, int]) -> None:
        """Keep it in this container's folder, where all containers of the image see it."""
        golden_store.store(GOLDEN, request["key"], list(files), list(files.values()))
        self.answer({"id": request["id"]})

    def _hold(self, key: str) -> bool:
        if key in self._held:
            return True
        descriptor = golden_store.hold(GOLDEN, key)
        if descriptor is not None:
            self._held[key] = descriptor
        return descriptor is not None
