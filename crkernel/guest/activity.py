"""Tells whether a guest has done anything of its own accord, by the CPU time of its threads.

A guest that is blocked in its event loop uses none; a timer or a request that it served shows.
Threads that belong to the language's runtime (garbage collection, background compilation) work on
for a moment after each cell without changing what the program could see, so they do not count.
"""

from __future__ import annotations

import os

_RUNTIME_THREADS = ("V8Worker", "libuv-worker", "DelayedTaskSche", "SignalInspector", "node-inspector")

Times = dict[tuple[int, int], int]


class Activity:
    """CPU times of the guest's threads. `ignored` is a thread of the guest that speaks with the
    supervisor and therefore runs without the program doing anything."""

    def __init__(self, ignored: int) -> None:
        self._ignored = ignored
        self._counted: dict[tuple[int, int], bool] = {}

    def times(self) -> Times:
        """Nanoseconds by (process, thread). Two equal ones: nothing ran in between."""
        times: Times = {}
        for pid in processes():
            try:
                threads = os.listdir(f"/proc/{pid}/task")
            except OSError:
                continue  # it has just ended; its parent's time tells
            for thread in map(int, threads):
                if self._counts(pid, thread):
                    times[pid, thread] = _cpu_time(pid, thread)
        return times

    def _counts(self, pid: int, thread: int) -> bool:
        key = (pid, thread)
        if key not in self._counted:
            try:
                with open(f"/proc/{pid}/task/{thread}/comm") as file:
                    name = file.read().strip()
            except OSError:
                return False
            self._counted[key] = thread != self._ignored and not name.startswith(_RUNTIME_THREADS)
        return self._counted[key]


def processes() -> list[int]:
    """Every process of this PID namespace but the supervisor."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def strays(root: int) -> list[str]:
    """Processes that left the tree of process `root` (a daemon that detached itself): no checkpoint
    of that tree holds them. As "name (process id)"."""
    parents, names = {}, {}
    for pid in processes():
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            parents[pid], names[pid] = int(parent), name
    inside = {root}
    while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
        inside |= more
    return [f"{names[pid]} ({pid})" for pid in sorted(parents.keys() - inside)]


def _cpu_time(pid: int, thread: int) -> int:
    try:
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            return int(file.read().split()[0])
    except OSError:
        return -1
