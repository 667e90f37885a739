"""What of a machine CRIU's images depend on."""

from __future__ import annotations

import platform


def identity() -> list[str]:
    """Kernel, architecture, and what the processor can do."""
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    return [platform.release(), platform.machine(), flags]


def lacking(theirs: list[str]) -> str | None:
    """What a machine with this identity has and this one has not, of what a guest may use. Another
    kernel will do."""
    _, architecture, flags = theirs
    _, ours, here = identity()
    if architecture != ours:
        return str(architecture)
    return min(set(flags.split()) - set(here.split()), default=None)
