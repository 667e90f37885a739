"""What children of the nest do in staging, each in its own process, and clearing up after them.

`CHORES` work on checkpoints that are there; `TRANSFERS` have a stream by which some come or go.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from . import golden, integrity, push
from .eviction import costs, drop
from .fetch import fetch
from .link import Channel
from .mounts import STAGING
from .rebase import clear, rebase
from .thin import thin

Json = dict[str, Any]


def _shrink(way: Callable[[str, str, str], tuple[int, int]], request: Json) -> Json:
    if not request["urgent"]:  # first: what fails once it is smaller would say that it is not
        integrity.seal_files(STAGING, request["name"])
    before, after = way(STAGING, request["name"], request["base"])
    if after == before:
        integrity.seal(f"{STAGING}/{request['name']}")
    return {"before": before, "after": after}


def _verify(request: Json) -> Json:
    target = request["target"]
    path = golden.folder(target) if target.startswith(golden.PREFIX) else target
    found = asdict(integrity.verify(STAGING, os.path.join(STAGING, path)))
    if target.startswith(golden.FOLDER):
        found["needed_by"].append(golden.name_of(target))
    return found


CHORES: dict[str, Callable[[Json], Json]] = {
    "costs": lambda request: {"costs": costs(STAGING, request["names"])},
    "digests": lambda _: {"digests": list(golden.digests())},
    "drop": lambda request: {"freed": drop(STAGING, request["names"])},
    "rebase": partial(_shrink, rebase),
    "thin": partial(_shrink, thin),
    "verify": _verify,
}


def _fetch(channel: Channel, request: Json) -> Json:
    fetch(STAGING, request["names"], request["image"], request["known"], channel)
    return {}


def clear_up(work: Json) -> Json:
    """Take away what a child left that was ended at a chore; what to tell of that. Whatever is
    wrong there, all else needs the nest."""
    words = f"{work['op']}: its process was ended, perhaps for want of memory"
    try:
        if "name" in work:
            (push.clear if work["op"] == "push" else clear)(STAGING, work["name"])
    except Exception as error:  # noqa: BLE001
        words += f"; what it left could not be cleared up: {error!r}"
    return {"kind": "EngineError", "message": words}


TRANSFERS: dict[str, Callable[[Channel, Json], Json]] = {
    "fetch": _fetch,
    "push": lambda channel, said: push.push(STAGING, said["name"], said["image"], channel),
}
