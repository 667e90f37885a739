"""The guest's monotonic clock: it stands still between a checkpoint and its restore.

Without that every timer would be due at once after a rewind, and a guest restored after a reboot
would see time run backwards, which ends Node at once. (time_namespaces(7))
"""

from __future__ import annotations

import time

from . import syscalls as sc

_BILLION = 1_000_000_000


class Clock:
    """The time namespace of this process's children."""

    def __init__(self) -> None:
        self._offset = 0  # nanoseconds between the host's clock and the guest's

    def now(self) -> int:
        """The guest's CLOCK_MONOTONIC, in nanoseconds."""
        return time.monotonic_ns() + self._offset

    def enter(self, now: int | None = None) -> None:
        """Children started from here on live in a time namespace of their own where it is `now`."""
        sc.unshare(sc.CLONE_NEWTIME)
        if now is None:
            return
        self._offset = now - time.monotonic_ns()
        seconds, nanoseconds = divmod(self._offset, _BILLION)
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(f"monotonic {seconds} {nanoseconds}\nboottime {seconds} {nanoseconds}\n")
