"""The pool on this machine: nests that wait at sockets, in a folder that only their user can enter.

Whoever looks for names there, gives or takes one holds a lock on the folder. One that is taken is
gone at once, so of two kernels that come at the same time one gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crkernel import image
from crkernel.engines import nest_process, outside
from crkernel.engines.limits import Limits
from crkernel.engines.pool import PATIENCE, TENDING, Pool, Waiting
from crkernel.engines.requests import Json
from crkernel.errors import EngineUnavailable
from crkernel.guest.greeting import CLAIM, is_ours, peer

_NAME = "nest-"
_STILLBORN = 60.0
"""A socket with a name at which nobody listens, after so many seconds, is of a nest that ended."""
_DISMISSAL_SECONDS = 30.0
_COMING_SECONDS = 5.0
_STEP = 0.05
_LOCK_SECONDS = 1.0
_LOCK_STEP = 0.002
_STDERR = 2


class LocalPool(Pool):
    """Of nests from the image at `path`, for kernels that have these limits and this network."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        network: str,
        size: int,
        wanted: Callable[[], Json | None],
    ) -> None:
        identity = (str(path), path.stat().st_ino, image.code_digest())
        nameserver = outside.nameserver() if network == "full" else None
        super().__init__((identity, limits, network, nameserver), size, wanted)
        self._path = path
        self._staging = limits.staging_size

    def claim(self) -> socket.socket | None:
        """The link to a nest that has waited, and is this kernel's now; None if there is none.
        Raises OSError, EngineUnavailable."""
        if not self._size:
            return None
        with _folder() as folder:
            for name in _names(folder):
                if name.startswith(f"{self._prefix}-") and (link := _take(folder, name)):
                    return link
        return None

    async def sweep(self) -> None:
        """Names at which nobody listens any more."""
        if not outside.pool_folder().exists():
            return  # and it is not made for that
        with _folder() as folder:
            for name in _names(folder):
                if link := _connect(folder, name):
                    link.close()
                else:
                    _sweep(folder, name)

    def name(self, slot: int) -> str:
        """It tells the image."""
        return f"{self._prefix}-{slot}"

    @property
    def _prefix(self) -> str:
        return f"{_NAME}{self._path.name}-{self.kind}"

    async def names(self) -> set[str]:
        """Also of those that are just coming up."""
        with _folder() as folder:
            return set(_names(folder))

    async def make(self, name: str, wanted: Json | None) -> None:
        """It is nobody's child, and complains to nobody before a kernel has come."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with _folder() as folder:
                if name in _names(folder):
                    return
                listener.bind(_address(folder, name))
            more = {"patience": PATIENCE, "tending": TENDING, "warm": wanted}
            more["by_root"] = os.geteuid() == 0
            command = nest_process.command(self._path, self._staging, listener.fileno(), **more)
            quiet = subprocess.DEVNULL
            starter = subprocess.Popen(
                command, pass_fds=[listener.fileno()], stdin=quiet, stdout=quiet, stderr=quiet
            )
        await asyncio.to_thread(starter.wait)


async def listed() -> list[Waiting]:
    """All that wait on this machine."""
    return [one for one in _given() if one.id]


async def empty() -> list[tuple[Waiting, bool]]:
    """Dismiss them all, also those that are just coming up; which they were, and whether each has
    ended."""
    found = _given()
    ended = [await asyncio.to_thread(_dismiss, one.name) for one in found]
    return list(zip(found, ended, strict=True))


def _given() -> list[Waiting]:
    """What has a name. Its id is that of its process, and empty while it takes nobody."""
    found: list[Waiting] = []
    if not outside.pool_folder().exists():
        return found
    with _folder() as folder:
        for name in _names(folder):
            digest = name.removeprefix(_NAME).partition("-")[0]
            link = _connect(folder, name)
            pid = str(peer(link)[0]) if link else ""
            found.append(Waiting(pid, name, digest, _age(folder, name)))
            if link:
                link.close()
    return found


def _dismiss(name: str) -> bool:
    """Take it, as a kernel does, and let it go; whether it has ended."""
    deadline = time.monotonic() + _COMING_SECONDS
    link = None
    while link is None:
        with _folder() as folder:
            if name not in _names(folder):
                return False
            link = _take(folder, name)
            if link is None and time.monotonic() > deadline:
                return _sweep(folder, name)
        time.sleep(_STEP)
    with link, contextlib.suppress(OSError):
        link.settimeout(_DISMISSAL_SECONDS)
        link.recv(1)  # the nest is ready for us
        link.shutdown(socket.SHUT_WR)
        while link.recv(1):
            pass
        return True
    return False


# -- the folder


@contextlib.contextmanager
def _folder() -> Iterator[int]:
    """A descriptor of it, by which it is locked; it is made if need be. Raises OSError,
    EngineUnavailable."""
    path = outside.pool_folder()
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        message = f"{path} is no folder where nests can be kept: {error.strerror}"
        raise EngineUnavailable(message, hint=f"see whose it is, and remove it: {path}") from error
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise EngineUnavailable(
                f"{path} is open to other users, and nests are not kept there",
                hint=f"see whose it is, and remove it: rm -r {path}",
            )
        _lock(folder, path)
        yield folder
    finally:
        os.close(folder)


def _lock(folder: int, path: Path) -> None:
    """Others have it for a few milliseconds, unless they were stopped at that moment."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                hint = f"see who has it: lsof {path}"
                raise EngineUnavailable(f"{path} is locked by a process", hint=hint) from error
            time.sleep(_LOCK_STEP)
        else:
            return


def _address(folder: int, name: str) -> str:
    """By the descriptor: nobody can put another folder in its place, and it is always short."""
    return f"/proc/self/fd/{folder}/{name}"


def _names(folder: int) -> list[str]:
    """Oldest first: that one would end first."""
    names = [name for name in os.listdir(folder) if name.startswith(_NAME)]
    return sorted(names, key=lambda name: _age(folder, name), reverse=True)


def _age(folder: int, name: str) -> float:
    return time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime


def _connect(folder: int, name: str) -> socket.socket | None:
    """A link to a nest of ours that waits under this name, if one does."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.setblocking(False)
    with contextlib.suppress(OSError):  # it is just coming up, or has ended
        link.connect(_address(folder, name))
        if is_ours(link):
            return link
    link.close()
    return None


def _sweep(folder: int, name: str) -> bool:
    """Remove a name at which nobody listens, unless that one is just coming up; whether it went."""
    if left := _age(folder, name) > _STILLBORN:
        os.unlink(name, dir_fd=folder)
    return left


def _take(folder: int, name: str) -> socket.socket | None:
    """As `_connect`, and it is nobody else's from now on."""
    if link := _connect(folder, name):
        os.unlink(name, dir_fd=folder)
        with contextlib.suppress(OSError):  # it ends at this moment
            socket.send_fds(link, [CLAIM], [_STDERR])
            return link
        link.close()
    return None
