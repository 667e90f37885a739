"""The options of our containers. Each one is explained in docs/security.md."""

from __future__ import annotations

import hashlib
import json
import random
from importlib.resources import files
from typing import Any

from crkernel.engines.base import Limits
from crkernel.guest.enter import UNPRIVILEGED_IDS

Json = dict[str, Any]

CODE = "/crkernel"
"""Where the guest's code lies in a container."""
_PYTHON = ["python3", "-E", "-s", "-S"]
GATE = [*_PYTHON, f"{CODE}/guest/gate.py"]
_TREE = "/image"
"""The image's tree is not the container's root: nothing that Docker mounts is then in the way of
what sandboxes see."""
GOLDEN = "/golden"
_OVERHEAD = 256 << 20
"""Bytes for nest, supervisors and CRIU."""
_SANDBOXES = 3
"""Live, spare, and one that is just ending."""
_MAPPED_IDS = range(10_000, 60_000)
"""Where the daemon maps user ids, it has few of them."""


POOL = "crkernel.pool"
"""The label of containers that were made for no kernel yet: their kind."""


def kind(image: str, limits: Limits) -> str:
    """What a kernel must want for a container of the pool to be of use to it."""
    return hashlib.sha256(repr((image, limits)).encode()).hexdigest()[:12]


def body(
    image: str, limits: Limits, *, golden: str, labels: dict[str, str], info: Json, patience: float
) -> Json:
    """What creates a container, in the words of Docker's REST API. `golden` is the volume of the
    image's golden roots, `info` what the daemon says of itself; the nest waits `patience` seconds
    for a kernel."""
    config = {
        "image": _TREE,
        "staging": limits.staging_size,
        "golden": GOLDEN,
        "patience": patience,
    }
    said = " ".join(info.get("SecurityOptions") or [])
    mapped = "name=rootless" in said or "name=userns" in said
    user = random.SystemRandom().choice(_MAPPED_IDS if mapped else UNPRIVILEGED_IDS)
    security = ["no-new-privileges", f"seccomp={_profile()}"]
    if "name=apparmor" in said:
        security.append("apparmor=unconfined")  # Docker's own profile refuses every mount
    memory = limits.memory + limits.disk_size + limits.staging_size + _OVERHEAD
    return {
        "Image": image,
        "Cmd": [*_PYTHON, f"{CODE}/guest/enter.py", json.dumps(config)],
        "User": f"{user}:{user}",
        "Labels": labels,
        "StopSignal": "SIGKILL",
        "HostConfig": {
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "IpcMode": "private",
            "LogConfig": {"Type": "none"},
            "MaskedPaths": ["/sys/firmware", "/sys/devices/virtual/powercap"],
            "Memory": memory,
            "MemorySwap": memory,
            "Mounts": [{"Type": "volume", "Source": golden, "Target": GOLDEN}],
            "NanoCpus": int(limits.cpus * 1e9),
            "NetworkMode": "none",
            "PidsLimit": _SANDBOXES * limits.max_processes,
            "ReadonlyPaths": [],
            "ReadonlyRootfs": True,
            "SecurityOpt": security,
        },
    }


def _profile() -> str:
    text = files("crkernel.engines.docker").joinpath("seccomp.json").read_text()
    return json.dumps(json.loads(text), separators=(",", ":"))
