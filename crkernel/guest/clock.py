"""The guest's monotonic clock: it stands still between a checkpoint and its restore.

Without that every timer would be due at once after a rewind, and a guest restored after a reboot
would see time run backwards, which ends Node at once. (time_namespaces(7))

A guest lives in a time namespace of its own. Its supervisor and the CRIU that dumps it live by the
same clock: CRIU takes processes in namespaces other than its own for containers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from . import syscalls as sc

_BILLION = 1_000_000_000


class Clock:
    """That of the guest in a sandbox."""

    def __init__(self) -> None:
        self._offset = 0  # nanoseconds between the host's clock and the guest's

    def now(self) -> tuple[int, int]:
        """The guest's CLOCK_MONOTONIC and the host's, in nanoseconds."""
        guest = time.monotonic_ns()
        return guest, guest - self._offset

    def part(self) -> None:
        """Children started from here on live in a time namespace of their own, which goes on as
        ours does."""
        sc.unshare(sc.CLONE_NEWTIME)

    def set(self, then: Sequence[int], *, goes_on: bool) -> None:
        """As `part`, but it is as late as `then` for a guest there, or time `goes_on` as it did for
        that one. Raises OSError."""
        self.part()
        guest, host = then
        self._offset = guest - (host if goes_on else time.monotonic_ns())
        seconds, nanoseconds = divmod(self._offset, _BILLION)
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(f"monotonic {seconds} {nanoseconds}\nboottime {seconds} {nanoseconds}\n")

    def share(self) -> None:
        """Live from here on by the clock that children have."""
        namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            sc.enter(namespace, sc.CLONE_NEWTIME)
        finally:
            os.close(namespace)
