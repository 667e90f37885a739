"""From a container with a network into the nest of another one, for what needs both.

A kernel's container has no network, and keeps none. What has to have one is done in a container
beside it, the *annex*, which shares its process ids: its main process enters the nest's user and
mount namespaces, as only the nest's own user may, and stays in the annex's network. Its argument is
JSON, of which `nest` is the process id of the nest, and `work` one of

    courier    `cache`, a folder for npm's; `disk`, as a nest is asked; `settings`, how many bytes
               of npm's settings come on stdin, before what is a courier's link 2
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

if __package__:
    from . import nest
    from . import syscalls as sc
    from .enter import GOLDEN
    from .link import Channel
    from .mounts import NPM_CACHE
else:  # run as a script, by the container's Python, without the package around it
    import syscalls as sc  # type: ignore[import-not-found,no-redef]

_START = "import sys; sys.path.insert(0, '/usr/lib/crkernel'); from guest.annex import main; main()"
_CACHE_FD = 3
_CHUNK = 1 << 16

Json = dict[str, Any]


def enter() -> None:
    """Be one of the nest's processes from here on, but for the network."""
    request = json.loads(sys.argv[1])
    process = os.pidfd_open(request["nest"])
    request["files"] = {name: _read(f"/etc/{name}") for name in ("hosts", "resolv.conf")}
    sc.enter(process, sc.CLONE_NEWUSER)
    sc.unshare(sc.CLONE_NEWNS)  # one in which it may clone mounts
    os.dup2(sc.clone_tree(request["cache"]), _CACHE_FD)
    sc.enter(process, sc.CLONE_NEWNS)
    os.closerange(_CACHE_FD + 1, 1 << 16)
    command = ["python3", "-I", "-S", "-c", _START, json.dumps(request)]
    os.execve("/usr/bin/python3", command, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def main() -> None:
    """Do the work, in a mount namespace of its own."""
    request = json.loads(sys.argv[1])
    sc.unshare(sc.CLONE_NEWNS)
    sc.detach(GOLDEN)  # nobody here makes golden roots
    _WORKS[request["work"]](request)


def _courier(request: Json) -> None:
    """Start one, and be there until it ends."""
    os.makedirs(NPM_CACHE, exist_ok=True)
    sc.attach(_CACHE_FD, NPM_CACHE)
    os.close(_CACHE_FD)
    settings = json.loads(_take(request["settings"]))
    settings["files"] |= request["files"]  # the annex knows its network, the kernel's machine not
    file = os.memfd_create("crkernel")
    os.write(file, json.dumps(settings).encode())
    pid = sc.fork_into(nest.COURIER_NAMESPACES)
    if pid == 0:
        try:
            nest.deliver(Channel(0, 1), file, request["disk"])
        finally:
            os._exit(1)
    os.waitpid(pid, 0)


def _take(size: int) -> bytes:
    """So many bytes of stdin, and not one of what follows. Raises EOFError."""
    data = b""
    while len(data) < size:
        more = os.read(0, min(_CHUNK, size - len(data)))
        if not more:
            raise EOFError("the kernel has hung up")
        data += more
    return data


_WORKS: dict[str, Callable[[Json], None]] = {"courier": _courier}


if __name__ == "__main__":
    enter()
