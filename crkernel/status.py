"""What %status shows of a session."""

from __future__ import annotations

from crkernel.engines.base import Engine
from crkernel.errors import EngineError
from crkernel.outcome import Json
from crkernel.past import Past
from crkernel.render import size

_NEWEST = 8
"""So many checkpoints is the cost shown of."""


async def status(
    engine: Engine, version: str, past: Past, swaps: int, ready_for: str | None
) -> Json:
    """Values by section, of a session whose guest has a runtime of that version."""
    told, limits, unit = await engine.status(), engine.limits, 1 << 20
    used, whole = told["staging used"] / unit, told["staging size"] // unit
    return {
        "engine": {
            "name": told["engine"],
            "image": told["image"],
            "guest": version,
            "start": told["start"],
            "cgroup": told["cgroup"],
            "staging": f"{used:.0f} of {whole} MiB",
        },
        "limits": {
            "memory": f"{limits.memory // unit} MiB",
            "max_processes": limits.max_processes,
            "file_size": f"{limits.file_size // unit} MiB",
            "disk_size": f"{limits.disk_size // unit} MiB",
            "network": ", last lost: ".join(filter(None, (engine.network, engine.network_lost))),
        },
        "timeline": {
            "head": past.timeline.head,
            "checkpoints": len(past.timeline),
            **_not_made_small(past),
            "twin swaps": swaps,
            "spare is ready for": ready_for or "no checkpoint",
        },
        "newest checkpoints": await _costs(past),
        "times": {f"last {step}": f"{s * 1e3:.1f} ms" for step, s in past.last.items()},
    }


def _not_made_small(past: Past) -> Json:
    if not (found := past.not_made_small):
        return {}
    newest = list(found)[-1]
    return {"not made small": f"{len(found)}, the newest is {newest}: {found[newest]}"}


async def _costs(past: Past) -> Json:
    """What the newest checkpoints take of staging, in words."""
    try:
        costs = await past.costs(_NEWEST)
    except EngineError as error:
        return {"not to be had": str(error)}
    return {
        key: f"images {size(images)}, memory files {size(own)} of its own, {size(shared)} shared, "
        f"files {size(files)}"
        for key, (images, own, shared, files) in costs.items()
    }
