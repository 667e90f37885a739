"""Tells whether a guest has done anything of its own accord, by its event loop and its threads.

The main thread's loop turns for whatever it does. Of other threads and processes the CPU time
tells: one that is blocked uses none; a timer or a request that it served shows. Threads that belong
to the language's runtime (garbage collection, background compilation) work on for a moment after
each cell without changing what the program could see, so they do not count.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from . import loop

_RUNTIME_THREADS = (
    b"V8Worker",
    b"libuv-worker",
    b"DelayedTaskSche",
    b"SignalInspector",
    b"node-inspector",
)

_THAW = 50_000
"""Nanoseconds that a thread takes to get over a dump and back into its system call: 12,000 to
16,000 were seen. A timer with an empty function takes 110,000 and more."""
_SLOW_THAW = 100_000
"""The same on a machine with much to do, where caches are cold: then it must have gone straight
back, which is to wait once. Who was woken from there has waited twice."""


@dataclass(frozen=True)
class Reading:
    """`turns` of the main thread's loop, None if it is not known. `times` of the other threads that
    count: CPU time in nanoseconds and how often it has begun to wait, by (process, thread)."""

    turns: int | None
    times: dict[tuple[int, int], tuple[int, int]]


class Activity:
    """What the threads of the guest `pid` do. `ignored` is a thread of it that speaks with the
    supervisor and therefore runs without the program doing anything."""

    def __init__(self, pid: int, ignored: int) -> None:
        self._loop = loop.of(pid)
        self._ignored = {ignored} if self._loop is None else {ignored, pid}
        self._counted: dict[tuple[int, int], bool] = {}

    def read(self, but: Collection[int] = ()) -> Reading:
        """As of now, `but` of these processes. Two equal ones: nothing ran in between, if the loop
        waits."""
        turns = None if self._loop is None else self._loop.turns()
        return Reading(turns, {key: (_cpu_time(*key), _waits(*key)) for key in self._threads(but)})

    def waits(self) -> bool:
        """Whether the main thread's loop has nothing to do, as far as it is known."""
        return self._loop is None or self._loop.waits()

    def is_under_way(self, but: Collection[int] = ()) -> bool:
        """Whether one of the threads runs, or would if it had a processor."""
        return not self.waits() or any(_state(*key) in (b"R", b"D") for key in self._threads(but))

    def _threads(self, but: Collection[int]) -> Iterator[tuple[int, int]]:
        for pid in processes():
            if pid in but:
                continue
            try:
                threads = os.listdir(f"/proc/{pid}/task")
            except OSError:
                continue  # it has just ended; its parent's time tells
            yield from ((pid, int(name)) for name in threads if self._counts(pid, int(name)))

    def _counts(self, pid: int, thread: int) -> bool:
        key = (pid, thread)
        if key not in self._counted:
            try:
                name = _read(pid, thread, "comm")
            except OSError:
                return False
            self._counted[key] = thread not in self._ignored and not name.startswith(
                _RUNTIME_THREADS
            )
        return self._counted[key]


def is_rest(before: Reading, now: Reading) -> bool:
    """Whether nothing has run between two readings, the first of a frozen guest."""
    return (
        before.turns == now.turns
        and before.times.keys() == now.times.keys()
        and all(
            _is_thaw(now.times[thread][0] - time, now.times[thread][1] - waits)
            for thread, (time, waits) in before.times.items()
        )
    )


def _is_thaw(time: int, waits: int) -> bool:
    return time <= _THAW or (time <= _SLOW_THAW and waits <= 1)


def processes() -> list[int]:
    """Every process of this PID namespace but the supervisor."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def strays(known: Collection[int]) -> list[str]:
    """Children of the supervisor that are not `known`, as "name (process id)": they have left the
    guest's tree. The guest adopts its orphans, so it takes a trick to get there."""
    found = []
    with open("/proc/1/task/1/children") as file:
        children = {int(pid) for pid in file.read().split()}
    for pid in sorted(children - set(known)):
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            found.append(f"{file.read().strip()} ({pid})")
    return found


def uses_system_v() -> bool:
    """Whether there is any of System V's IPC: it is the sandbox's and ends with it, and no process
    needs to hold it."""
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sysvipc/{kind}") as file:
            file.readline()  # the names of the columns
            if file.readline():
                return True
    return False


def _waits(pid: int, thread: int) -> int:
    return int(_status(pid, thread, b"voluntary_ctxt_switches") or -1)


def _state(pid: int, thread: int) -> bytes:
    return _status(pid, thread, b"State")


def _status(pid: int, thread: int, field: bytes) -> bytes:
    """The first word of a field of a thread; nothing if it has just ended."""
    try:
        status = _read(pid, thread, "status")
    except OSError:
        return b""
    return status.partition(b"\n%s:" % field)[2].split(None, 1)[0]


def _cpu_time(pid: int, thread: int) -> int:
    try:
        return int(_read(pid, thread, "schedstat").split(None, 1)[0])
    except OSError:
        return -1


def _read(pid: int, thread: int, name: str) -> bytes:
    """A file of a thread, as somebody waits: a file object would take longer than all else."""
    descriptor = os.open(f"/proc/{pid}/task/{thread}/{name}", os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 14)
    finally:
        os.close(descriptor)
