"""Gives a daemon the image: it builds it by our Dockerfile, or gets the tree of the local image."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable

from crkernel import image, image_build, image_fetch, image_steps
from crkernel.engines.docker import archive, images
from crkernel.engines.docker.daemon import Daemon, Json
from crkernel.errors import EngineError
from crkernel.image_host import make_folder
from crkernel.image_steps import ANNOUNCED, TAIL, Progress

_PATIENCE = 15  # seconds that a daemon takes to end a build that was interrupted
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_DOCKERS_OWN = re.compile(r"Step \d| *--->|Removing intermediate")


def build(
    progress: Progress, *, force: bool = False, from_tree: bool = False, network: str | None = None
) -> str:
    """Have the daemon's image of the current recipe and code; its tag.

    Where it has Debian's image or reaches a registry the daemon builds ours, its steps on
    `network`; else, and with `from_tree`, it gets the tree of the local image, which is built if
    need be. An interrupted build leaves nothing behind; of two at once the second waits.
    """
    daemon = asyncio.run(Daemon.connect())
    asyncio.run(images.check_architecture(daemon))
    make_folder(image.images_dir())
    name = image.images_dir() / f"docker-{image.recipe_digest()}"
    with image_build.terminable(), image_build.locked(name, progress) as (_, waited):
        force = force and not waited
        tags = {one.tag for one in asyncio.run(images.listed(daemon))}
        whole = force or images.base_tag() not in tags
        if whole:
            asyncio.run(images.release(daemon, images.code_tag()))
            if from_tree or not _has_debian(daemon, progress):
                _load(daemon, progress, force=force)
            else:
                _have_built(daemon, image_steps.timed(progress), network)
        if whole or images.code_tag() not in tags:
            progress("adding the guest's code")
            asyncio.run(images.add_code(daemon))
        asyncio.run(images.sweep(daemon, images.LABEL))  # those that had the tags before
    return images.code_tag()


def context(progress: Progress) -> archive.Fill:
    """What fills an archive with all that our Dockerfile takes, npm's packages too: the daemon's
    machine has to reach Debian's mirror and nothing else."""
    tarballs = {}
    for package in image_steps.packages():
        progress(f"{package['package']} {package['version']} from the npm registry")
        tarballs[image_fetch.tarball(package)] = image_fetch.download(package, progress)
    return archive.context(tarballs)


def _has_debian(daemon: Daemon, progress: Progress) -> bool:
    """Whether a build has what to begin with; says why not."""
    base = archive.base()
    if asyncio.run(daemon.find("inspect_image", base)) is not None:
        return True
    progress(f"having the daemon at {daemon.endpoint.url} fetch {base}")
    repository, _, tag = base.partition(":")
    try:
        asyncio.run(daemon.ask("pull", repository, tag=tag))
        if asyncio.run(daemon.find("inspect_image", base)) is not None:
            return True
        why = "it is not there"
    except EngineError as error:
        why = error.message
    progress(f"{base} is not to be had ({why[:200]}): taking the tree of the local image instead")
    return False


def _load(daemon: Daemon, progress: Progress, *, force: bool) -> None:
    tree = image_build.build(progress, force=force)
    progress(f"loading it into the Docker daemon at {daemon.endpoint.url}")
    asyncio.run(images.load(daemon, tree))


def _have_built(daemon: Daemon, say: Progress, network: str | None) -> None:
    """In this thread, which can be interrupted: the daemon then ends the build."""
    fill = context(say)
    mark = secrets.token_hex(8)
    options = {"t": images.base_tag(), "nocache": "1", "forcerm": "1"}
    if network:
        options["networkmode"] = network
    try:
        with (
            archive.streamed(fill) as blocks,
            daemon.build(blocks, {"BUILD": mark}, options) as said,
        ):
            _relay(said, say)
    finally:
        _clear(daemon, mark)


def _relay(said: Iterable[Json], say: Progress) -> None:
    """Pass on what is announced; raise what a step failed with."""
    tail: deque[str] = deque(maxlen=TAIL)
    rest = ""
    for one in said:
        if "error" in one:
            lines = list(tail) if "returned a non-zero code" in one["error"] else [one["error"]]
            raise EngineError(
                "\n".join(["docker build failed:", *(f"    {line[:200]}" for line in lines)]),
                hint=f"mend that, try --network host, or run: {images.BUILD_COMMAND} --from-tree",
            )
        *lines, rest = (rest + _COLOURS.sub("", one.get("stream", ""))).split("\n")
        for line in filter(str.strip, lines):
            if line.startswith(ANNOUNCED):
                say(line.removeprefix(ANNOUNCED).rstrip())
            elif not _DOCKERS_OWN.match(line):
                tail.append(line.rstrip())


def _clear(daemon: Daemon, mark: str) -> None:
    """Remove the stages of a build, which is perhaps just ending."""
    label = f"{images.BUILD_LABEL}={mark}"
    deadline = time.monotonic() + _PATIENCE
    while asyncio.run(images.sweep(daemon, label)) and time.monotonic() < deadline:
        time.sleep(0.2)
