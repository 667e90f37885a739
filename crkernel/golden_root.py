"""Which golden root a kernel can start from: one that was made under the very same conditions."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from pathlib import Path

import crkernel.guest
from crkernel.engines.base import Limits
from crkernel.outcome import Language

_LENGTH = 16


def key(language: Language, limits: Limits) -> str:
    """Names a golden root by all that goes into it: the guest's code and command, its limits, and
    what of the machine CRIU images depend on. (Golden roots lie in their image.)"""
    guest = (limits.memory, limits.max_processes, limits.file_size)
    parts = [language.command(limits), dict(language.environment), guest, _machine(), _code()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_LENGTH]


@cache
def _machine() -> list[str]:
    with Path("/proc/cpuinfo").open() as file:
        flags = next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    return [platform.release(), platform.machine(), flags]


@cache
def _code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(crkernel.guest.__file__).parent.glob("*.[jp][sy]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
