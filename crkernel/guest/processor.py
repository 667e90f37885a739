"""What of a machine CRIU's images depend on."""

from __future__ import annotations

import platform


def identity() -> list[str]:
    """Kernel, architecture, and what the processor can do."""
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    return [platform.release(), platform.machine(), flags]
