"""The image: where it lies, which recipe it was built from, which images there are.

An image is a directory `<data home>/images/<digest>`, the root file system itself. It appears there
by one rename of a finished tree, so whatever has that name is complete. The kernel imports this
module at its start, so it is small; `image_build` makes and removes images.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import crkernel.guest
from crkernel import __version__
from crkernel.errors import EngineUnavailable, ImageMissing

BUILD_COMMAND = "crkernel image build"
RECIPE = Path(__file__).with_name("recipe.toml")
SHIMS = Path(__file__).with_name("shim")
TYPINGS = Path(__file__).with_name("typings") / "generate.mjs"
# Inside an image, written last: what `images()` shows of it.
RECORD = "etc/crkernel-image.json"
NOSECCOMP = "/usr/lib/crkernel-shims/noseccomp.so"

CRIU_NEEDED = (4, 2)  # 4.1 cannot dump any TCP socket on recent kernels
_DIGEST_LENGTH = 12
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""What machines and daemons call themselves, and how the recipe spells it."""


@dataclass(frozen=True)
class ImageInfo:
    """One built image; `size` in bytes, `created` in seconds since 1970. A `damaged` one has lost
    what is recorded of it, perhaps more."""

    digest: str
    path: Path
    size: int
    created: float
    current: bool
    damaged: bool = False


def data_home() -> Path:
    """Where crkernel keeps its data; `CRKERNEL_DATA` overrides the XDG data folder."""
    if own := os.environ.get("CRKERNEL_DATA"):
        return Path(own).absolute()
    base = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification has relative paths ignored.
    home = Path(base) if base.startswith("/") else user_home() / ".local" / "share"
    return home / "crkernel"


def user_home() -> Path:
    """`EngineUnavailable` for a user who has none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise EngineUnavailable(
            f"user id {os.getuid()} has neither HOME nor a name in /etc/passwd",
            hint="set HOME to a folder that you can write to",
        ) from error


def cache_home() -> Path:
    """Where crkernel keeps what it can do without."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if base.startswith("/") else user_home() / ".cache"
    return home / "crkernel"


def images_dir() -> Path:
    return data_home() / "images"


def architecture() -> str:
    """The machine as the recipe spells it; raises `EngineUnavailable` where crkernel cannot run."""
    machine = platform.machine().lower()
    if machine not in ARCHITECTURES:
        raise EngineUnavailable(
            f"crkernel runs on x86_64 and aarch64, this machine is {machine or 'unknown'}",
            hint="use another machine",
        )
    return ARCHITECTURES[machine]


@cache
def recipe_digest() -> str:
    """Names the image of the current recipe: its text, our sources for it, the architecture."""
    digest = hashlib.sha256(architecture().encode())
    for source in (RECIPE, TYPINGS, *sorted(SHIMS.glob("*.*"))):
        digest.update(b"\0%s\0" % source.name.encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:_DIGEST_LENGTH]


@cache
def code_digest() -> str:
    """Names the guest's code, which sandboxes get beside their image."""
    digest = hashlib.sha256()
    for path in sorted(Path(crkernel.guest.__file__).parent.glob("*.[jp][sy]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:_DIGEST_LENGTH]


def image_path() -> Path | None:
    """The image of the current recipe, or None while it is not built."""
    path = images_dir() / recipe_digest()
    return path if path.is_dir() else None


def require_image() -> Path:
    """As `image_path`, for callers that cannot go on without; raises `ImageMissing`."""
    path = image_path()
    if path is not None:
        return path
    if found := images():
        message = mismatch(f"the image {recipe_digest()}", found[0].digest)
    else:
        message = f"there is no sandbox image in {images_dir()}"
    raise ImageMissing(message, hint=f"run: {BUILD_COMMAND}")


def mismatch(needed: str, there: str) -> str:
    """What is wrong where only an image of another version of the recipe is found."""
    return f"crkernel {__version__} needs {needed}; what is there, {there}, is of another version"


def images() -> list[ImageInfo]:
    """All finished images, newest first."""
    found = []
    for path in images_dir().glob("[0-9a-f]" * _DIGEST_LENGTH):
        current = path.name == recipe_digest()
        try:
            record = json.loads((path / RECORD).read_bytes())
            size, created = int(record["size"]), float(record["created"])
            found.append(ImageInfo(path.name, path, size, created, current))
        except (OSError, ValueError, KeyError, TypeError):
            if path.is_dir():  # else it is not ours, or being removed right now
                found.append(ImageInfo(path.name, path, 0, 0.0, current, damaged=True))
    return sorted(found, key=lambda info: info.created, reverse=True)


def hold(path: Path) -> int:
    """Mark an image as in use until the returned descriptor is closed, at the latest by our end.

    Engines call it before they run anything from the image, which is not removed while it is held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except FileNotFoundError:
        pass  # removed a moment ago, as when the number differs
    raise ImageMissing("the sandbox image was just removed", hint=f"run: {BUILD_COMMAND}")


def enter_command(path: Path) -> list[str]:
    """Words that, put before a command, run it in an image: bare, to see whether it works there."""
    environment = ["/usr/bin/env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin"]
    if os.geteuid() == 0:
        # Where a build container may not unshare. A root by `su` has no sbin on its PATH.
        return ["env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "chroot", str(path), *environment]
    return ["unshare", "--map-root-user", f"--root={path}", *environment]


def check_criu(said: str, hint: str) -> str:
    """The version in what `criu --version` said; `EngineUnavailable` with the hint if too old."""
    match = re.search(r"^Version: *((\d+)\.(\d+)\S*)", said, re.M)
    needed = ".".join(map(str, CRIU_NEEDED))
    if match is None:
        raise EngineUnavailable(
            f"CRIU does not tell its version, {needed} is needed: {said.strip()[:80]!r}", hint=hint
        )
    if (int(match[2]), int(match[3])) < CRIU_NEEDED:
        raise EngineUnavailable(f"CRIU {match[1]} is older than {needed}", hint=hint)
    return match[1]


@contextmanager
def unheld(path: Path) -> Iterator[bool]:
    """Whether nobody holds the image; if so, nobody can begin to within the block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
