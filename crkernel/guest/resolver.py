"""Which name server a machine or a container asks."""

from __future__ import annotations

import re

_LINE = re.compile(r"^\s*nameserver\s+([\d.]+)\s*$", re.M)


def nameserver(resolv_conf: str) -> str:
    """The first one that a resolv.conf names: where sandboxes have their questions sent to."""
    found = _LINE.search(resolv_conf)
    return found[1] if found else "127.0.0.1"
