"""From a container with a network into the nest of another one, for what needs both.

A kernel's container has no network, and keeps none. What has to have one is done in a container
beside it, the *annex*, which shares its process ids: its main process enters the nest's user and
mount namespaces, as only the nest's own user may, and stays in the annex's network. Its argument is
JSON, of which `nest` is the process id of the nest, `brings` a path of the annex that the work
takes along, and `work` one of

    courier    `brings` a folder for npm's cache; `disk`, as a nest is asked; `settings`, how many
               bytes of npm's settings come on stdin, before what is a courier's link 2
    uplinks    `brings` the device that they need. On stdin come frames with the `pid` of a sandbox,
               which gets an uplink for as long as it lives; on stdout one says `ready`, or else
               `closed` if the device is, and of each uplink that ends before that it is `unlinked`
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

if __package__:
    from . import resolver, uplink, wire
    from . import syscalls as sc
    from .enter import GOLDEN
    from .link import Channel, write_all
else:  # run as a script, by the container's Python, without the package around it
    import syscalls as sc  # type: ignore[import-not-found,no-redef]

_START = "import sys; sys.path.insert(0, '/usr/lib/crkernel'); from guest.annex import main; main()"
_BROUGHT_FD = 3
_CHUNK = 1 << 16

Json = dict[str, Any]


def enter() -> None:
    """Be one of the nest's processes from here on, but for the network."""
    request = json.loads(sys.argv[1])
    process = os.pidfd_open(request["nest"])
    request["files"] = {name: _read(f"/etc/{name}") for name in ("hosts", "resolv.conf")}
    request["open"] = os.access(request["brings"], os.R_OK | os.W_OK)
    sc.enter(process, sc.CLONE_NEWUSER)
    sc.unshare(sc.CLONE_NEWNS)  # one in which it may clone mounts
    brought = sc.clone_tree(request["brings"])
    sc.enter(process, sc.CLONE_NEWNS)
    os.dup2(brought, _BROUGHT_FD)  # which may have been the number of `process`
    os.closerange(_BROUGHT_FD + 1, 1 << 16)
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
    from . import nest  # which takes long, and uplinks do without
    from .mounts import NPM_CACHE

    os.makedirs(NPM_CACHE, exist_ok=True)
    _put_at(NPM_CACHE)
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


def _uplinks(request: Json) -> None:
    """Connect sandboxes with this network until the kernel hangs up, which ends all uplinks."""
    if not request["open"]:
        write_all(1, wire.pack({"closed": request["brings"]}))
        return
    os.close(os.open(uplink.TUN, os.O_CREAT | os.O_WRONLY))
    _put_at(uplink.TUN)
    nameserver = resolver.nameserver(request["files"]["resolv.conf"])
    write_all(1, wire.pack({"ready": wire.PROTOCOL}))
    decoder, poll, children = wire.Decoder(), select.poll(), _ends_of_children()
    links = uplink.Uplinks(_fork)
    sandboxes: dict[int, int] = {}  # process ids of their PID 1, by descriptors of them
    poll.register(0, select.POLLIN)
    poll.register(children, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in sandboxes:
                poll.unregister(descriptor)
                os.close(descriptor)
                links.end(sandboxes.pop(descriptor))
                continue
            data = os.read(descriptor, _CHUNK)
            if descriptor == children:
                for said in filter(None, (links.ended(*ended) for ended in _reaped())):
                    write_all(1, wire.pack(said))
                continue
            if not data:
                return
            for body in decoder.feed(data):
                pid = int(wire.parse(body)["pid"])
                with contextlib.suppress(ProcessLookupError):  # it has ended before it was linked
                    sandbox = os.pidfd_open(pid)
                    sandboxes[sandbox] = pid
                    links.start(pid, nameserver)
                    poll.register(sandbox, select.POLLIN)


def _ends_of_children() -> int:
    """A descriptor that can be read whenever a child has ended."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _reaped() -> Iterator[tuple[int, int]]:
    """Children that have ended, and their wait status."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except OSError as error:
            os.write(2, f"uplink: {error}\n".encode())
        finally:
            os._exit(1)
    return pid


def _put_at(path: str) -> None:
    """Where what was brought is to be seen."""
    sc.attach(_BROUGHT_FD, path)
    os.close(_BROUGHT_FD)


def _take(size: int) -> bytes:
    """So many bytes of stdin, and not one of what follows. Raises EOFError."""
    data = b""
    while len(data) < size:
        more = os.read(0, min(_CHUNK, size - len(data)))
        if not more:
            raise EOFError("the kernel has hung up")
        data += more
    return data


_WORKS: dict[str, Callable[[Json], None]] = {"courier": _courier, "uplinks": _uplinks}


if __name__ == "__main__":
    enter()
