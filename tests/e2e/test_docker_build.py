"""The image as the daemon builds it itself, by the Dockerfile: on a Debian that is imported in
place of a registry's, since tests reach none; and what is left when such a build is stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import containers
import pytest
from _driver import eventually
from driver import Kernel

from crkernel import image, image_steps
from crkernel.engines.docker import archive, build, images
from crkernel.errors import UserError

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow, pytest.mark.alone]
COMMAND = ["crkernel", "image", "build", "--engine", "docker", "--force", "--network", "host"]
MINUTES = 600.0
# Where a Debian by mmdebstrap differs from one to which apt has added; and what comes later: golden
# roots, and what npm leaves in /tmp when root runs it in the local tree.
LATER = r"(etc/(alternatives|apt|dpkg)|usr/share/doc|var/lib/(apt|dpkg)|golden)(/|$)|tmp/."


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image with which the Dockerfile begins."""
    recipe = image_steps.recipe()["debian"]
    tar = tmp_path_factory.mktemp("debian") / "debian.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", recipe["suite"], tar, recipe["source"]]
    subprocess.run(command, check=True)
    repository, _, tag = archive.base().partition(":")
    containers.client().api.import_image_from_file(str(tar), repository=repository, tag=tag)
    yield archive.base()
    containers.client().images.remove(archive.base(), force=True)


def files(root: tarfile.TarFile) -> dict[str, tuple[bytes, int, str]]:
    """Kind, permissions and target of what is in a Docker image's tree, by its path."""
    return {
        path: (entry.type, entry.mode & 0o7777, entry.linkname)
        for entry in root
        if entry.name.startswith("image/")
        and not re.match(LATER, path := entry.name.removeprefix("image/"))
    }


def test_a_build_that_is_stopped_leaves_nothing(debian: str) -> None:
    with subprocess.Popen(COMMAND, stderr=subprocess.PIPE, text=True) as stopped:
        assert stopped.stderr is not None
        for line in stopped.stderr:
            if "Debian with" in line:
                break
        assert eventually(containers.left_by_builds, 60), "no step of it was seen"
        stopped.send_signal(signal.SIGINT)
        said = stopped.stderr.read()
    assert stopped.returncode == 130, said
    assert said.splitlines()[-1] == "crkernel: stopped"
    assert containers.left_by_builds() == []
    assert containers.client().images.get(debian)


@pytest.mark.usefixtures("debian")
def test_it_is_the_image_of_the_recipe(start_kernel: Callable[..., Kernel]) -> None:
    built = subprocess.run(COMMAND, capture_output=True, text=True, timeout=MINUTES, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stdout.strip() == images.code_tag()
    assert "instead" not in built.stderr
    assert re.search(r"^ +[0-9.]+ s  CRIU 4\.", built.stderr, re.M)
    assert containers.left_by_builds() == []
    made = containers.client().images.get(images.base_tag())
    assert made.labels[images.LABEL] == image.recipe_digest()
    listed = subprocess.run(
        ["crkernel", "image", "list"], capture_output=True, text=True, check=True
    )
    assert image.recipe_digest() in listed.stdout
    assert re.search(f"^{images.base_tag()} .* current .* in Docker$", listed.stdout, re.M)

    kernel = start_kernel()
    kernel.ok("let x = 1; require('fs').writeFileSync('f', 'one')")
    kernel.ok("x = 2; require('fs').writeFileSync('f', 'two')")
    kernel.rewind(1)
    assert kernel.ok("`${x} ${require('fs').readFileSync('f', 'utf8')}`").text == "'1 one'"


def test_it_has_the_files_of_the_local_image(tmp_path: Path) -> None:
    """After the test above, which has it built."""
    client = containers.client()
    created = client.api.create_container(images.base_tag(), ["true"])
    try:
        with (tmp_path / "built.tar").open("wb") as file:
            file.writelines(client.api.export(created["Id"]))
    finally:
        client.api.remove_container(created["Id"])
    with tarfile.open(tmp_path / "local.tar", "w") as file:
        archive.tree(image.require_image())(file)
    with tarfile.open(tmp_path / "built.tar") as one, tarfile.open(tmp_path / "local.tar") as other:
        built, local = files(one), files(other)
    assert len(local) > 5000
    assert built.items() ^ local.items() == set()


@pytest.mark.usefixtures("debian")
def test_buildkit_makes_it_of_the_context(start_kernel: Callable[..., Kernel]) -> None:
    """By Debian's client, which has it built in; a newer one takes buildx."""
    docker = next(path for path in ("/usr/bin/docker", "docker") if shutil.which(path))
    written = subprocess.run(["crkernel", "image", "context"], capture_output=True, check=True)
    name = re.search(rb"for docker build --tag (\S+) -", written.stderr)
    assert name is not None
    assert name[1].decode() == images.base_tag()
    for tag in (images.code_tag(), images.base_tag()):
        containers.client().images.remove(tag)
    try:
        built = subprocess.run(
            [docker, "build", "--network", "host", "--tag", images.base_tag(), "-"],
            input=written.stdout,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            capture_output=True,
            timeout=MINUTES,
            check=False,
        )
        if b"buildx component is missing" in built.stderr:
            pytest.skip("takes Docker's client 20.10, or buildx")
        assert built.returncode == 0, built.stderr.decode()
        made = containers.client().images.get(images.base_tag())
        assert made.labels[images.LABEL] == image.recipe_digest()
        kernel = start_kernel()
        kernel.ok("let x = 1")
        kernel.ok("x = 2")
        kernel.rewind(1)
        assert kernel.ok("x").text == "1"
    finally:
        build.build(print, from_tree=True)  # what is not there


def test_an_image_that_kernels_run_from_is_not_replaced(
    start_kernel: Callable[..., Kernel],
) -> None:
    kernel = start_kernel()
    kernel.ok("1")
    with pytest.raises(UserError, match=f"image {images.code_tag()} is in use"):
        build.build(print, force=True, from_tree=True)
    assert kernel.ok("1 + 1").text == "2"


def test_without_debians_image_it_is_the_local_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "base", lambda: "crkernel-nobody-has-this:slim")
    for tag in (images.code_tag(), images.base_tag()):
        containers.client().images.remove(tag)
    said: list[str] = []
    assert build.build(said.append) == images.code_tag()
    assert any("is not to be had" in line and "tree of the local image" in line for line in said)
    assert containers.left_by_builds() == []
