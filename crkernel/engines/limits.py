"""What sandboxes may use."""

from __future__ import annotations

from dataclasses import dataclass

from crkernel.engines import machine


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
    def default(cls) -> Limits:
        """A third of the machine's memory for the guest, a third for staging, a twelfth or 2 GiB
        for files: all full, they leave a quarter of it to everyone else."""
        memory = machine.memory()
        third = max(256 << 20, memory // 3)
        return cls(third, 512, 4 << 30, min(2 << 30, memory // 12), third)
