"""The image as Docker has it: the same tree, below /image of a Docker image `crkernel:RECIPE`.

The guest's code is a layer on it, `crkernel:RECIPE-CODE`, which is added when a version of
crkernel first uses the image; so a container starts with all that it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import crkernel.guest
from crkernel import image
from crkernel.engines.docker import pool
from crkernel.engines.docker.container import CODE, GOLDEN, golden_volume
from crkernel.engines.docker.daemon import Daemon
from crkernel.errors import DaemonRefused, EngineUnavailable, ImageMissing, UserError

REPOSITORY = "crkernel"
BUILD_COMMAND = f"{image.BUILD_COMMAND} --engine docker"
_LABEL = "crkernel.recipe"
_CHUNK = 1 << 20
_LINKS = ("bin", "lib", "lib64", "sbin", "usr")  # so that the container itself runs its programs
_MOUNT_POINTS = ("dev", "etc", "proc", "sys", CODE.strip("/"))


@dataclass(frozen=True)
class DockerImage:
    """One of our images in a daemon; `size` in bytes."""

    tag: str
    size: int
    created: float
    current: bool


def base_tag() -> str:
    """The image of the current recipe."""
    return f"{REPOSITORY}:{image.recipe_digest()}"


def code_tag() -> str:
    """The same with the guest's code of this crkernel."""
    return f"{base_tag()}-{image.code_digest()}"


def short(tag: str) -> str:
    """A tag as we and Docker write it; Podman names the registry too."""
    return tag.removeprefix("docker.io/library/")


async def require(daemon: Daemon) -> str:
    """The tag that containers start from. Raises ImageMissing with the remedy."""
    if await daemon.find("inspect_image", code_tag()) is None:
        await check_architecture(daemon)
        await _require_base(daemon)
        await add_code(daemon)
    return code_tag()


async def _require_base(daemon: Daemon) -> None:
    if await daemon.find("inspect_image", base_tag()) is not None:
        return
    if await listed(daemon):
        message = "the Docker image was built from an older recipe than this crkernel's"
    else:
        message = f"the Docker daemon at {daemon.endpoint.url} has no image {base_tag()}"
    raise ImageMissing(message, hint=f"run: {BUILD_COMMAND}")


async def check_architecture(daemon: Daemon) -> str:
    """That the daemon's machine is one for which this crkernel's image is built."""
    said = str((await daemon.ask("version"))["Arch"])
    if image.ARCHITECTURES.get(said) != image.architecture():
        raise EngineUnavailable(
            f"the daemon's machine is {said}, crkernel's image here is for {image.architecture()}",
            hint="use a daemon on a machine of this architecture",
        )
    return said


async def listed(daemon: Daemon) -> list[DockerImage]:
    """All of ours, newest first."""
    found = [
        DockerImage(
            tag, int(entry["Size"]), float(entry["Created"]), tag in (base_tag(), code_tag())
        )
        for entry in await daemon.ask("images", filters={"label": _LABEL})
        for tag in map(short, entry["RepoTags"] or [])
    ]
    return sorted(found, key=lambda one: one.created, reverse=True)


async def remove(tag: str | None) -> list[str]:
    """Delete one image, or all that are not current, with their golden roots and the containers
    that wait for kernels; which they were. Raises UserError for one that is in use or missing."""
    daemon = await Daemon.connect()
    known = await listed(daemon)
    doomed = [one.tag for one in known if (one.tag == tag if tag else not one.current)]
    if tag and not doomed:
        hint = "see: crkernel image list --engine docker"
        raise UserError(f"there is no image {tag} in Docker", hint=hint)
    for name in doomed:
        for one in await pool.waiting(daemon):
            if one.image == name:
                await pool.dismiss(daemon, one)
        try:
            await daemon.ask("remove_image", name)
            await daemon.find("remove_volume", golden_volume(name))
        except DaemonRefused as error:
            if error.status != 409:
                raise
            hint = "shut down the kernels that run from it first"
            raise UserError(f"image {name} is in use", hint=hint) from error
    return doomed


async def load(daemon: Daemon, tree: Path) -> None:
    """Give the daemon the tree of a local image, as a stream."""
    await check_architecture(daemon)
    changes = [f"LABEL {_LABEL}={image.recipe_digest()}"]
    with _streamed(tree) as blocks:
        await daemon.ask(
            "import_image_from_stream",
            blocks,
            repository=base_tag(),  # Podman does not look at `tag`
            changes=changes,
        )


async def add_code(daemon: Daemon) -> None:
    """Make `code_tag()` of `base_tag()`."""
    created = await daemon.ask("create_container", base_tag(), ["true"], network_disabled=True)
    try:
        await daemon.ask("put_archive", created["Id"], CODE, _code_archive())
        await daemon.ask("commit", created["Id"], REPOSITORY, code_tag().partition(":")[2])
    finally:
        await daemon.ask("remove_container", created["Id"], force=True)


def _code_archive() -> bytes:
    buffer = io.BytesIO()
    folder = Path(crkernel.guest.__file__).parent
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.glob("*.[jp][sy]")):
            archive.add(path, f"guest/{path.name}", filter=_roots)
    return buffer.getvalue()


@contextlib.contextmanager
def _streamed(tree: Path) -> Iterator[Iterator[bytes]]:
    """The blocks of a tar archive of a Docker image's root, made while they are read."""
    reader, writer = os.pipe()
    failure: list[Exception] = []

    def write() -> None:
        try:
            with (
                os.fdopen(writer, "wb") as sink,
                tarfile.open(fileobj=sink, mode="w|", bufsize=_CHUNK) as archive,
            ):
                _fill(archive, tree)
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


def _fill(archive: tarfile.TarFile, tree: Path) -> None:
    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if entry.name.startswith("image/golden/") else _roots(entry)

    archive.add(tree, "image", filter=keep)
    for name in _LINKS:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, f"image/{name}"
        archive.addfile(link)
    for name, mode in [*((name, 0o755) for name in _MOUNT_POINTS), (GOLDEN.strip("/"), 0o777)]:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, mode
        archive.addfile(folder)
    if not (tree / "golden").exists():
        folder = tarfile.TarInfo("image/golden")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """It belongs to root, and everybody reads it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode |= 0o444
    return entry


def build(progress: Callable[[str], None], *, force: bool = False) -> str:
    """Have the daemon's image of the current recipe and code; its tag."""
    return asyncio.run(_build(progress, force=force))


async def _build(progress: Callable[[str], None], *, force: bool) -> str:
    from crkernel import image_build

    daemon = await Daemon.connect()
    await check_architecture(daemon)
    tags = {one.tag for one in await listed(daemon)}
    if force or base_tag() not in tags:
        tree = await asyncio.to_thread(image_build.build, progress, force=force)
        progress(f"loading it into the Docker daemon at {daemon.endpoint.url}")
        await load(daemon, tree)
    if force or code_tag() not in tags:
        progress("adding the guest's code")
        await add_code(daemon)
    return code_tag()
