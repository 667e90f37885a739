"""The process of a nest on this machine, and the one that is started ahead of its kernel.

A kernel's own imports take three times as long as a nest takes to come up, and keep one processor
busy. So `python -m crkernel` has a nest started first, and the engine finds it ready.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import crkernel.guest
from crkernel import image
from crkernel.engines import outside
from crkernel.engines.limits import Limits
from crkernel.errors import CRKernelError

log = logging.getLogger(__name__)

_ENTER = Path(crkernel.guest.__file__).with_name("enter.py")
_UNUSUAL = re.compile(r"--CRKernel\.(staging_size|engine(?!=(auto|local)$))")
"""Arguments of a kernel that wants another nest, or none."""
_POOL = re.compile(r"--CRKernel\.pool=0*[1-9]")


class NestProcess:
    """A nest that comes up; `control` is the socket to it."""

    def __init__(self, path: Path, staging: int) -> None:
        """Of the image at `path`, with `staging` bytes. Raises OSError, ImageMissing."""
        self.wanted = (path, staging)
        self._held = image.hold(path)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                command(path, staging, theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it, unless it has ended."""
        self._process.kill()

    def wait(self) -> None:
        """Until it has ended, and needs its image no more."""
        self._process.wait()
        self.control.close()
        os.close(self._held)


def command(path: Path, staging: int, control: int, **more: Any) -> list[str]:
    """Starts a nest of the image at `path` that has the descriptor `control`; `more` is for one
    that waits (see `crkernel.guest.waiting_nest`)."""
    config = {"image": str(path), "staging": staging, "cache": outside.npm_cache(), **more}
    golden = golden_folder(path)
    if golden.parent != path:
        config["golden"] = str(golden)
    # -E -s -S: nothing of the user's Python set-up takes part.
    python = [sys.executable, "-E", "-s", "-S"]
    return [*python, str(_ENTER), json.dumps(config), str(control)]


def golden_folder(path: Path) -> Path:
    """Where golden roots are kept: in the tree of the image at `path`, or, where that has none and
    this user can put none there, with what is the user's own."""
    inside = path / "golden"
    if not inside.is_dir() or os.access(inside, os.W_OK) or any(inside.iterdir()):
        return inside
    if os.geteuid() == 0:  # its nests are other users, and would not get there
        return inside
    own = image.cache_home() / "golden" / path.name
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.info("golden roots cannot be kept: %s", error)
        return inside
    return own


_ahead: NestProcess | None = None


def start_ahead(arguments: list[str]) -> None:
    """Start the nest of a kernel with these arguments, if it is likely to want the usual one. What
    is in the way of that, the engine will meet again, and tell."""
    global _ahead
    if any(_UNUSUAL.match(argument) for argument in arguments):
        return
    if any(_POOL.match(argument) for argument in arguments) and _somebody_waits():
        return
    with suppress(CRKernelError, OSError):
        path = image.image_path()
        if path is not None:
            _ahead = NestProcess(path, Limits.default().staging_size)


def _somebody_waits() -> bool:
    """Whether there is a nest in the pool, most likely the one for this kernel."""
    with suppress(OSError):
        return any(outside.pool_folder().iterdir())
    return False


def take(path: Path, staging: int) -> NestProcess:
    """The one that was started ahead, if it is as wanted, or a new one; see there."""
    global _ahead
    if _ahead is not None and _ahead.wanted == (path, staging):
        nest, _ahead = _ahead, None
        return nest
    drop_ahead()
    return NestProcess(path, staging)


def drop_ahead() -> None:
    """End the one that was started ahead, if it is still there: nobody wants it."""
    global _ahead
    if _ahead is not None:
        nest, _ahead = _ahead, None
        nest.kill()
        nest.wait()
