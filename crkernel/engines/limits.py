"""What sandboxes may use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from crkernel.engines import machine

_OVERHEAD = 256 << 20
"""Bytes for nest, supervisors and CRIU."""
_SANDBOXES = 3
"""Live, spare, and one that is just ending."""


OF_THE_MACHINE = ("memory", "disk_size", "staging_size")
"""Those whose defaults depend on it."""


class Room(NamedTuple):
    """What all sandboxes of a kernel together may use: bytes, and processes."""

    memory: int
    processes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sandbox may use. Bytes, but for `max_processes`."""

    memory: int
    max_processes: int
    file_size: int
    disk_size: int
    staging_size: int
    cpus: float = 0.0
    """Processors, where the engine can limit them; 0: all."""

    @classmethod
    def default(cls, memory: int | None = None) -> Limits:
        """A third of the machine's memory for the guest, a third for staging, a twelfth or 2 GiB
        for files: all full, they leave a quarter of it to everyone else. Another machine's is given
        in bytes."""
        memory = machine.memory() if memory is None else memory
        third = max(256 << 20, memory // 3)
        return cls(third, 512, 4 << 30, min(2 << 30, memory // 12), third)

    def on(self, memory: int) -> Limits:
        """With what is this machine's default as it is on one that has so many bytes, if less."""
        here, there = Limits.default(), Limits.default(memory)
        usual = [n for n in OF_THE_MACHINE if getattr(self, n) == getattr(here, n)]
        return replace(self, **{n: min(getattr(here, n), getattr(there, n)) for n in usual})

    def room(self) -> Room:
        """What holds a nest with guests that use all that they may."""
        memory = self.memory + self.disk_size + self.staging_size + _OVERHEAD
        return Room(memory, _SANDBOXES * self.max_processes)
