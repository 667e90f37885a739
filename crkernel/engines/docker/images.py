"""The image as Docker has it: its tree, below /image of a Docker image `crkernel:RECIPE`.

The guest's code is a layer on it, `crkernel:RECIPE-CODE`, which is added when a version of
crkernel first uses the image; so a container starts with all that it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crkernel import image
from crkernel.engines.docker import archive, pool
from crkernel.engines.docker.container import CODE, golden_volume, npm_volume, scratch_name, short
from crkernel.engines.docker.daemon import Daemon
from crkernel.errors import DaemonRefused, EngineUnavailable, ImageMissing, UserError

REPOSITORY = "crkernel"
BUILD_COMMAND = f"{image.BUILD_COMMAND} --engine docker"
LABEL = "crkernel.recipe"
BUILD_LABEL = "crkernel.build"
"""Of all that one build makes, with its mark as the value."""


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
    found = await listed(daemon)
    for one in found:
        if one.current:
            name = one.tag.rpartition("/")[2]
            message = f"the image {one.tag} is not looked for by that name, but as {name}"
            raise ImageMissing(message, hint=f"run: docker tag {one.tag} {name}")
    if found:
        message = image.mismatch(f"the Docker image {base_tag()}", found[0].tag)
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
            tag,
            int(entry["Size"]),
            float(entry["Created"]),
            current=tag.rpartition("/")[2] in (base_tag(), code_tag()),  # a registry's too
        )
        for entry in await daemon.ask("images", filters={"label": LABEL})
        for tag in map(short, entry["RepoTags"] or [])
    ]
    return sorted(found, key=lambda one: one.created, reverse=True)


async def remove(tag: str | None) -> tuple[list[str], list[UserError]]:
    """Delete one image, or all that are not current, with their golden roots and the containers
    that wait for kernels; with the last one npm's cache of this user, too. The names of what has
    gone, and why something has not: it is in use. Raises UserError for one that is missing."""
    daemon = await Daemon.connect()
    known = await listed(daemon)
    doomed = [one.tag for one in known if (one.tag == tag if tag else not one.current)]
    if tag and not doomed:
        hint = "see: crkernel image list --engine docker"
        raise UserError(f"there is no image {tag} in Docker", hint=hint)
    gone: list[str] = []
    refused: list[UserError] = []
    for name in doomed:
        with _gather(refused):
            await release(daemon, name)
            await _unless_used(f"image {name}", daemon.ask("remove_image", name))
            gone.append(name)
    cache = npm_volume()
    if gone and not await listed(daemon) and await daemon.find("inspect_volume", cache):
        with _gather(refused):
            await _unless_used(f"npm's cache {cache}", daemon.ask("remove_volume", cache))
            gone.append(cache)
    return gone, refused


@contextmanager
def _gather(refused: list[UserError]) -> Iterator[None]:
    """One refusal is no reason to keep what comes next."""
    try:
        yield
    except UserError as error:
        refused.append(error)


async def release(daemon: Daemon, tag: str) -> None:
    """Let nothing be left of an image but itself: no container that waits for a kernel, and none of
    its golden roots. Raises UserError if it is in use."""
    for one in await pool.waiting(daemon):
        if one.image == tag:
            await pool.dismiss(daemon, one)
    await _unless_used(f"image {tag}", daemon.find("remove_volume", golden_volume(tag)))


async def _unless_used(what: str, removal: Awaitable[object]) -> None:
    try:
        await removal
    except DaemonRefused as error:
        if error.status != 409:
            raise
        hint = "shut down the kernels that use it first"
        raise UserError(f"{what} is in use", hint=hint) from error


async def sweep(daemon: Daemon, label: str) -> bool:
    """Remove what has this label, but neither a name nor a container; whether some is left."""
    filters = {"dangling": True, "label": label}
    await daemon.ask("prune_images", filters=filters)
    return bool(await daemon.ask("images", filters=filters))


async def load(daemon: Daemon, tree: Path) -> None:
    """Give the daemon the tree of a local image, as a stream."""
    changes = [f"LABEL {LABEL}={image.recipe_digest()}"]
    with archive.streamed(archive.tree(tree)) as blocks:
        await daemon.ask(
            "import_image_from_stream",
            blocks,
            repository=base_tag(),  # Podman does not look at `tag`
            changes=changes,
        )


async def add_code(daemon: Daemon) -> None:
    """Make `code_tag()` of `base_tag()`."""
    created = await daemon.ask(
        "create_container", base_tag(), ["true"], name=scratch_name(), network_disabled=True
    )
    try:
        await daemon.ask("put_archive", created["Id"], CODE, archive.whole(archive.code))
        await daemon.ask("commit", created["Id"], REPOSITORY, code_tag().partition(":")[2])
    finally:
        await daemon.ask("remove_container", created["Id"], force=True)
