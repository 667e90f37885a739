"""The tar archives that a daemon is given: an image's tree, the guest's code, what a build takes.

A Docker image of ours has the tree at /image, and around that what a container needs by itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import crkernel
from crkernel import image, image_steps
from crkernel.engines.docker.container import CODE, GOLDEN, NPM_CACHE

Fill = Callable[[tarfile.TarFile], None]

_CHUNK = 1 << 20
_LINKS = ("bin", "lib", "lib64", "sbin", "usr")  # so that the container itself runs its programs
_MOUNT_POINTS = ("dev", "etc", "image/golden", "proc", "sys", CODE.strip("/"))
_PACKAGE = Path(crkernel.__file__).parent
_STEPS = (
    "__init__.py",
    "errors.py",
    "lines.py",
    "image*.py",
    "guest/*.py",
    "recipe.toml",
    "shim/*",
    "typings/*",
)
"""What of the package `image_steps` takes."""


def tree(folder: Path) -> Fill:
    """Fills an archive with a Docker image's root, of a local image's tree."""

    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if f"{entry.name}/".startswith("image/golden/") else _roots(entry)

    def fill(archive: tarfile.TarFile) -> None:
        archive.add(folder, "image", filter=keep)
        _around(archive)

    return fill


def context(tarballs: Mapping[str, bytes]) -> Fill:
    """Fills one with what `docker build` takes; `tarballs` are those of npm by their file names."""

    def fill(archive: tarfile.TarFile) -> None:
        _add(archive, "Dockerfile", dockerfile().encode())
        for pattern in _STEPS:
            for path in sorted(_PACKAGE.glob(pattern)):
                archive.add(path, f"crkernel/{path.relative_to(_PACKAGE)}", filter=_roots)
        for name, data in tarballs.items():
            _add(archive, f"npm/{name}", data)
        _add(archive, "around.tar", whole(_around))

    return fill


def code(archive: tarfile.TarFile) -> None:
    """Fills one with the guest's code, and a folder for npm's cache."""
    for path in sorted((_PACKAGE / "guest").glob("*.[jp][sy]")):
        archive.add(path, f"guest/{path.name}", filter=_roots)
    archive.addfile(_folder(NPM_CACHE.rpartition("/")[2], 0o777))


def dockerfile() -> str:
    """The Dockerfile, with what the recipe says as the defaults of its arguments."""
    debian = image_steps.recipe()["debian"]
    values = {
        "SUITE": debian["suite"],
        "SOURCE": debian["source"],
        "PACKAGES": " ".join(debian["packages"]),
        "EXCLUDE": " ".join(debian["exclude"]),
        "RECIPE": image.recipe_digest(),
    }
    text = files("crkernel.engines.docker").joinpath("Dockerfile").read_text()
    return re.sub(
        r"^ARG (\w+)$", lambda arg: f"{arg[0]}={json.dumps(values[arg[1]])}", text, flags=re.M
    )


def base() -> str:
    """The image of a registry that the Dockerfile begins with."""
    return f"debian:{image_steps.recipe()['debian']['suite']}-slim"


def whole(fill: Fill) -> bytes:
    """A small archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        fill(archive)
    return buffer.getvalue()


@contextlib.contextmanager
def streamed(fill: Fill) -> Iterator[Iterator[bytes]]:
    """The blocks of a big one, made while they are read."""
    reader, writer = os.pipe()
    failure: list[Exception] = []

    def write() -> None:
        try:
            with (
                os.fdopen(writer, "wb") as sink,
                tarfile.open(fileobj=sink, mode="w|", bufsize=_CHUNK) as archive,
            ):
                fill(archive)
        except (OSError, tarfile.TarError) as error:  # the reader left, or the tree is damaged
            failure.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with os.fdopen(reader, "rb") as source:
            yield iter(lambda: source.read(_CHUNK), b"")
    finally:
        thread.join()
    if failure:
        raise failure[0]


def _around(archive: tarfile.TarFile) -> None:
    """What a container needs besides the tree."""
    for name in _LINKS:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, f"image/{name}"
        archive.addfile(link)
    for name, mode in [*((name, 0o755) for name in _MOUNT_POINTS), (GOLDEN.strip("/"), 0o777)]:
        archive.addfile(_folder(name, mode))


def _folder(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """It belongs to root, and everybody reads it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode |= 0o444
    return entry
