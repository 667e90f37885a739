"""The image by way of a registry of one's own, to a daemon that has never seen it; and builds that
come at the same time, or are stopped, where the daemon gets the local image's tree."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import containers
import docker
import pytest
from _daemon import daemon
from click.testing import CliRunner
from driver import SECONDS, Kernel

from crkernel import cli
from crkernel.engines.docker import build, images

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow]

COMMAND = ["crkernel", "image", "build", "--engine", "docker", "--from-tree"]


def listens(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of Debian's docker-registry. Daemons do without TLS only on this machine."""
    if shutil.which("docker-registry") is None:
        pytest.skip("takes a registry: apt-get install docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "config.yml").write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'storage'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    command = ["docker-registry", "serve", str(tmp_path / "config.yml")]
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + SECONDS
    while not listens(port):
        assert service.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    service.terminate()
    service.wait(SECONDS)
    shutil.rmtree(tmp_path / "storage", ignore_errors=True)  # it is large


@pytest.mark.parametrize("what", ["with the guest's code", "without"])
def test_a_daemon_gets_the_image_from_a_registry(
    what: str,
    registry: str,
    start_kernel: Callable[..., Kernel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tag = images.code_tag() if what != "without" else images.base_tag()
    here = f"{registry}/{tag}"
    client = containers.client()
    assert client.images.get(tag).tag(here)
    said = client.images.push(here)
    client.images.remove(here)
    assert "errorDetail" not in said
    with daemon("--bridge=none", "--iptables=false") as address:
        there = docker.DockerClient(base_url=address)
        monkeypatch.setenv("DOCKER_HOST", address)
        doctor = ["doctor", "--engine", "docker"]
        without = CliRunner().invoke(cli.cli, doctor).stdout
        assert f"has no image {images.base_tag()}" in without
        there.images.pull(here)
        untagged = CliRunner().invoke(cli.cli, doctor).stdout
        assert f"{here} is not looked for by that name, but as {tag}" in untagged
        assert f"fix: docker tag {here} {tag}" in untagged
        there.images.get(here).tag(tag)
        listed = CliRunner().invoke(cli.cli, ["image", "list", "--engine", "docker"]).stdout
        assert {line.split()[0] for line in listed.splitlines()} == {here, tag}
        assert " old " not in listed
        kernel = start_kernel()
        kernel.ok("let x = 1; require('fs').writeFileSync('f', 'one')")
        kernel.ok("x = 2; require('fs').writeFileSync('f', 'two')")
        kernel.rewind(1)
        assert kernel.ok("`${x} ${require('fs').readFileSync('f', 'utf8')}`").text == "'1 one'"
        kernel.close()
        there.close()


@pytest.fixture
def without_image() -> Iterator[None]:
    """The daemon has none, until the test is over."""
    for tag in (images.code_tag(), images.base_tag()):
        containers.client().images.remove(tag)
    yield
    build.build(print, from_tree=True)


@pytest.mark.alone
@pytest.mark.usefixtures("without_image")
def test_of_two_builds_at_once_the_second_takes_what_the_first_made() -> None:
    builds = [
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [one.communicate(timeout=120) for one in builds]
    assert [one.returncode for one in builds] == [0, 0], ended
    assert {out.strip() for out, _ in ended} == {images.code_tag()}
    assert sum("loading it into the Docker daemon" in err for _, err in ended) == 1, ended
    assert containers.left_by_builds() == []


@pytest.mark.alone
@pytest.mark.usefixtures("without_image")
def test_a_load_that_is_stopped_leaves_nothing() -> None:
    with subprocess.Popen(COMMAND, stderr=subprocess.PIPE, text=True) as stopped:
        assert stopped.stderr is not None
        for line in stopped.stderr:
            if "loading it" in line:
                break
        time.sleep(1)
        stopped.send_signal(signal.SIGINT)
        said = stopped.stderr.read()
    assert stopped.returncode == 130, said
    assert said.splitlines()[-1] == "crkernel: stopped"
    tags = {tag for one in containers.client().images.list() for tag in one.tags}
    assert images.base_tag() not in tags
    assert containers.left_by_builds() == []
