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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.client import BASELINE, OURS, Kernel
from bench.engines import call, dockerd, our_command
from bench.table import Table
from crkernel.engines import local_pool
from crkernel.engines.docker import images, pool

_LOCAL = ("--CRKernel.engine=local",)
_DOCKER = ("--CRKernel.engine=docker",)
_POOL = "--CRKernel.pool=1"
_NODE = ["--network", "none", "--rm", images.base_tag(), "/image/usr/local/bin/node", "-e", "1"]
_PAUSE = 2.0  # seconds in which a kernel before has ended, and the pool is quiet
_SECONDS = 60.0
_HERE = {"ipykernel": (), "local": _LOCAL, "local, from the pool": (*_LOCAL, _POOL)}
_WAYS = {**_HERE, "docker": _DOCKER, "docker, from the pool": (*_DOCKER, _POOL)}


def run(n: int | None) -> list[Table]:
    """n: starts of each, in turns."""
    n = n or 7
    table = Table("Start to first result", "each in its turn; ratios are to ipykernel")
    values: defaultdict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        stack.enter_context(_pool_of("local, from the pool"))
        ways, docker = list(_HERE), os.geteuid() == 0 and shutil.which("dockerd")
        if docker:
            stack.enter_context(dockerd())
            our_command("image", "build", "--engine", "docker")  # with a golden root
            stack.enter_context(_pool_of("docker, from the pool"))
            ways = list(_WAYS)
        for _ in range(n):
            _measure(ways, values)
            if docker:
                values["docker run node -e 1"].append(call(["docker", "run", *_NODE]))
    base = values["ipykernel"]
    for name, times in values.items():
        aim = "<= 1.2x" if name == "local" else ""
        table.add("to the first result", name, times, against=base, aim=aim)
    if not docker:
        table.lacks("to the first result", "docker", "needs root, and docker.io")
    return [table]


@contextmanager
def _pool_of(way: str) -> Iterator[None]:
    """One that is kept full meanwhile."""
    keeper = Kernel(OURS, arguments=_WAYS[way])
    try:
        _await_pool(way)
        yield
    finally:
        keeper.close()
        our_command("pool", "--empty", "--engine", way.partition(",")[0])


def _measure(ways: list[str], values: defaultdict[str, list[float]]) -> None:
    for way in ways:
        time.sleep(_PAUSE)
        kernel = Kernel(BASELINE if way == "ipykernel" else OURS, arguments=_WAYS[way])
        values[way].append(kernel.first)
        if _POOL in _WAYS[way]:
            _await_pool(way)
        kernel.close()


def _await_pool(way: str) -> None:
    """Until one waits for the next kernel, in place of the one that this kernel took."""
    deadline = time.monotonic() + _SECONDS
    listed = (pool if _WAYS[way][0] in _DOCKER else local_pool).listed
    while not asyncio.run(listed()) and time.monotonic() < deadline:
        time.sleep(0.2)
