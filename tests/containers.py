"""What tests see of our containers, from outside: of a daemon on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import docker
import psutil

from crkernel.engines import Engine


@cache
def client() -> Any:
    """The docker SDK's, with which a user would look."""
    return docker.from_env()


def answers() -> bool:
    """Whether there is a daemon."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(os.environ["DOCKER_HOST"].removeprefix("unix://")) == 0


def of(pid: int | None = None) -> list[Any]:
    """The containers of one kernel's process, this one by default."""
    label = f"crkernel.pid={pid or os.getpid()}"
    return list(client().containers.list(all=True, ignore_removed=True, filters={"label": label}))


def left_by_builds() -> list[str]:
    """Images without a name, and containers, by their ids; but not what waits for kernels, which
    other tests have made, nor the image that it is made of."""
    everyone = client().api.containers(all=True)
    waiting = [one for one in everyone if "crkernel.pid" in one["Labels"]]
    dangling = client().api.images(filters={"dangling": True}, quiet=True)
    used = {one["ImageID"] for one in waiting}
    builders = [one["Id"] for one in everyone if one not in waiting]
    return [*builders, *(one for one in dangling if one not in used)]


def named(name: str) -> Any:
    """The container of this name, as it is now."""
    return client().containers.get(name)


def main(container: Any) -> psutil.Process:
    """The first process of one."""
    return psutil.Process(container.attrs["State"]["Pid"])


def nest(container: Any) -> psutil.Process:
    """The nest of one: the child of its main process."""
    (found,) = main(container).children()
    return found


def nest_of(engine: Engine) -> psutil.Process:
    """The nest of this process's engine, whichever it is: all else is a descendant of it."""
    if engine.name == "docker":
        (container,) = of()
        return nest(container)
    (found,) = psutil.Process().children()
    return found


def restorers(among: Iterable[int]) -> list[int]:
    """The CRIUs that are to restore something, and what they have made: they have the shim."""
    found = []
    for pid in among:
        with contextlib.suppress(OSError):  # it has just ended
            if "threshold.so" in Path(f"/proc/{pid}/maps").read_text():
                found.append(pid)
    return found
