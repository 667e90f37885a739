"""The guest's monotonic clock: it stands still between a checkpoint and its restore.

Without that every timer would be due at once after a rewind, and a guest restored after a reboot
would see time run backwards, which ends Node at once. (time_namespaces(7))
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from . import syscalls as sc

_BILLION = 1_000_000_000


class Clock:
    """The time namespace of this process's children."""

    def __init__(self) -> None:
        self._offset = 0  # nanoseconds between the host's clock and the guest's

    def now(self) -> tuple[int, int]:
        """The guest's CLOCK_MONOTONIC and the host's, in nanoseconds."""
        host = time.monotonic_ns()
        return host + self._offset, host

    def enter(self, then: Sequence[int] | None = None, *, goes_on: bool = False) -> None:
        """Children started from here on live in a time namespace of their own, where it is as late
        as `then` for a guest, or where time `goes_on` as it did for that one."""
        sc.unshare(sc.CLONE_NEWTIME)
        if then is None:
            return
        guest, host = then
        self._offset = guest - (host if goes_on else time.monotonic_ns())
        seconds, nanoseconds = divmod(self._offset, _BILLION)
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(f"monotonic {seconds} {nanoseconds}\nboottime {seconds} {nanoseconds}\n")
