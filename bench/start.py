"""From the start of a kernel's process to its first result: both engines, cold and from the pool.

Beside them ipykernel, and Docker's own start of a Node. A Docker daemon is started for it. Needs
root and docker.io for the lines that name Docker.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import defaultdict

from bench.client import BASELINE, OURS, Kernel
from bench.engines import call, dockerd
from bench.table import Table
from crkernel.engines.docker import images, pool

_LOCAL = ("--CRKernel.engine=local",)
_DOCKER = ("--CRKernel.engine=docker",)
_POOL = (*_DOCKER, "--CRKernel.pool=1")
_NODE = ["--network", "none", "--rm", images.base_tag(), "/image/usr/local/bin/node", "-e", "1"]
_PAUSE = 2.0  # seconds in which a kernel before has ended, and the pool is quiet
_SECONDS = 60.0
_WAYS = {"ipykernel": (), "local": _LOCAL, "docker": _DOCKER, "docker, from the pool": _POOL}


def run(n: int | None) -> list[Table]:
    """n: starts of each, in turns."""
    n = n or 7
    table = Table("Start to first result", "each in its turn; ratios are to ipykernel")
    values: defaultdict[str, list[float]] = defaultdict(list)
    if os.geteuid() == 0 and shutil.which("dockerd"):
        with dockerd():
            call(["crkernel", "image", "build", "--engine", "docker"])  # with a golden root
            keeper = Kernel(OURS, arguments=_POOL)
            _await_pool()
            for _ in range(n):
                _measure(list(_WAYS), values)
                values["docker run node -e 1"].append(call(["docker", "run", *_NODE]))
            keeper.close()
            call(["crkernel", "pool", "--empty"])
    else:
        for _ in range(n):
            _measure(["ipykernel", "local"], values)
    base = values["ipykernel"]
    for name, times in values.items():
        aim = "<= 1.2x" if name == "local" else ""
        table.add("to the first result", name, times, against=base, aim=aim)
    if len(values) == 2:
        table.lacks("to the first result", "docker", "needs root, and docker.io")
    return [table]


def _measure(ways: list[str], values: defaultdict[str, list[float]]) -> None:
    for way in ways:
        time.sleep(_PAUSE)
        kernel = Kernel(BASELINE if way == "ipykernel" else OURS, arguments=_WAYS[way])
        values[way].append(kernel.first)
        if _WAYS[way] == _POOL:
            _await_pool()
        kernel.close()


def _await_pool() -> None:
    """Until a container waits for the next kernel, in place of the one that this kernel took."""
    deadline = time.monotonic() + _SECONDS
    while not asyncio.run(pool.listed()) and time.monotonic() < deadline:
        time.sleep(0.2)
