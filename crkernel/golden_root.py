"""Which golden root a kernel can start from: one that was made under the very same conditions."""

from __future__ import annotations

import hashlib
import json

from crkernel import image
from crkernel.engines.limits import Limits
from crkernel.outcome import Language

_LENGTH = 16


def key(language: Language, limits: Limits, machine: list[str]) -> str:
    """Names a golden root by all that goes into it: the guest's code and command, its limits, and
    what of the machine CRIU images depend on. (Golden roots lie in, or with, their image.)"""
    guest = (limits.memory, limits.max_processes, limits.file_size)
    parts = [
        language.command(limits),
        dict(language.environment),
        guest,
        machine,
        image.code_digest(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_LENGTH]
