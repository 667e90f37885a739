"""Kernels whose sandboxes live in Podman, by its Docker-compatible socket.

A service with a storage of its own is started, as root and as an ordinary account; where this
machine does not allow that, what podman said is why the tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import psutil
import pytest
from _driver import eventually, open_up, travels
from click.testing import CliRunner
from driver import SECONDS, Kernel
from registry import Registry
from test_network import Server, connect, get, own_address

import crkernel
from crkernel import cli
from crkernel.doctor import examine
from crkernel.engines.docker import build
from crkernel.guest import linger

pytestmark = [pytest.mark.e2e, pytest.mark.docker]


def working_in(folder: Path, how: str = "") -> list[int]:
    """Processes of Podman's that do."""
    found = {
        one.pid: " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])
    }
    return [pid for pid, words in found.items() if str(folder) in words and how in words]


def an_account() -> str:
    """One that rootless Podman can work for: with a name, and ids below its own."""
    names = {entry.pw_name for entry in pwd.getpwall() if entry.pw_uid}
    for line in Path("/etc/subuid").read_text().splitlines():
        if (name := line.partition(":")[0]) in names and shutil.which("newuidmap"):
            return name
    pytest.skip("takes uidmap, and an account with ids in /etc/subuid: useradd -m somebody")


def command(folder: Path, account: str | None) -> list[str]:
    """Podman as that account; as root it has a storage of its own."""
    environment = [f"{name}={folder / name.lower()}" for name in ("HOME", "XDG_RUNTIME_DIR")]
    environment += [f"CONTAINERS_CONF={folder / 'conf'}", f"PATH={os.environ['PATH']}"]
    podman = ["env", "-i", *environment, "podman"]
    if account is None:
        return [*podman, "--root", str(folder / "root"), "--runroot", str(folder / "run")]
    words = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups", *podman]
    # It reads the seccomp profile itself, wherever crkernel is.
    package = Path(crkernel.__file__).parent
    script = "\n".join(["set -eu", *open_up([package], folder / "keep"), 'exec "$@"'])
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *words]


@pytest.fixture(scope="module", params=["root", "rootless"])
def podman(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a service that has the image; DOCKER_HOST names it."""
    if shutil.which("podman") is None or os.getuid() != 0:
        pytest.skip("takes podman, and root for a storage of its own")
    account = an_account() if request.param == "rootless" else None
    folder = Path(tempfile.mkdtemp(prefix="podman-"))  # a short one: a socket's path is limited
    folder.chmod(0o755)
    for name in ("home", "xdg_runtime_dir", "keep"):
        (folder / name).mkdir(mode=0o700)
    # Podman's way to clear up after an exec would come five minutes later, and mount things.
    (folder / "conf").write_text("[engine]\nexit_command_delay = 0\n")
    if account is not None:
        subprocess.run(["chown", "-R", f"{account}:", folder], check=True)
    address = f"unix://{folder}/sock"
    words = command(folder, account)
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        patch.delenv("DOCKER_TLS_VERIFY", raising=False)
        service = subprocess.Popen(
            [*words, "system", "service", "--time=0", address], stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + SECONDS
            while not (folder / "sock").is_socket():
                if service.poll() is not None or time.monotonic() > deadline:
                    said = (folder / "log").read_text().strip().splitlines()
                    pytest.skip(f"podman does not start: {said[-1:] or 'it does not listen'}")
                time.sleep(0.05)
            build.build(print, from_tree=True)
            yield address
        finally:
            # A rootless one is two processes.
            for pid in working_in(folder, "system service"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            service.wait(SECONDS)
            assert eventually(lambda: not working_in(folder), SECONDS)
            subprocess.run([*words, "system", "reset", "--force"], check=True)
            shutil.rmtree(folder)


def test_time_travel(podman: str, start_kernel: Callable[..., Kernel]) -> None:
    travels(start_kernel(), podman)


@pytest.mark.usefixtures("podman")
def test_packages_come_by_an_annex(
    start_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.publish("one", "1.0.0", {"index.js": "module.exports = 1"})
    monkeypatch.setenv("npm_config_registry", registry.url)
    try:
        kernel = start_kernel()
        kernel.ok("%npm install one")
        assert kernel.value("require('one')") == 1
    finally:
        registry.close()


@pytest.mark.usefixtures("podman")
def test_a_guest_gets_out_by_an_annex(start_kernel: Callable[..., Kernel]) -> None:
    server, local = Server(own_address()), Server("127.0.0.1")
    try:
        kernel = start_kernel("--CRKernel.network=full")
        held = kernel.ok(connect(server)).count
        assert kernel.value(get(server)) == "hello"
        limit = "{ signal: AbortSignal.timeout(1000) }"
        for address in ("127.0.0.1", "10.0.2.2", "10.0.2.100"):
            kernel.fails(f"await fetch('http://{address}:{local.port}/', {limit})")
        kernel.rewind(held)
        assert kernel.until("failed") == "ECONNRESET"
        assert kernel.value(get(server)) == "hello"
        assert local.accepted == 0
    finally:
        server.close()
        local.close()


def test_the_container_is_confined_as_dockers_is(
    podman: str, start_kernel: Callable[..., Kernel]
) -> None:
    kernel = start_kernel()
    kernel.ok("1")
    name = linger.address(kernel.manager.session.key).decode().lstrip("\0")
    found = docker.DockerClient(podman).containers.get(name)
    status = Path(f"/proc/{found.attrs['State']['Pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(fields["Uid"].split()[0]) >= 10_000
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    mounts = Path(f"/proc/{found.attrs['State']['Pid']}/mountinfo").read_text()
    assert " /sys/firmware " in mounts  # masked
    host = found.attrs["HostConfig"]
    assert not host["Privileged"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    info = docker.DockerClient(podman).info()
    if not info["Rootless"] or info["CgroupVersion"] != "1":
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0


def test_a_limit_that_is_raised_is_the_containers_too(
    podman: str, start_kernel: Callable[..., Kernel]
) -> None:
    """Where Podman has no limits it needs none, and an older one cannot change them."""
    kernel = start_kernel()
    kernel.ok("let x = 1")
    kernel.ok("%config max_processes=600")
    tried = kernel.run("%reset")
    name = linger.address(kernel.manager.session.key).decode().lstrip("\0")
    host = docker.DockerClient(podman).containers.get(name).attrs["HostConfig"]
    if tried.status == "error":
        assert "this version of Podman cannot change them" in tried.error
        assert kernel.ok("x").text == "1"
    assert (host["PidsLimit"] in (0, 1800)) == (tried.status == "ok")


def test_a_shut_down_kernel_leaves_nothing(
    podman: str, start_kernel: Callable[..., Kernel]
) -> None:
    kernel = start_kernel()
    kernel.ok("1")
    client = docker.APIClient(podman)
    assert client.containers(all=True)
    kernel.manager.shutdown_kernel()
    assert eventually(lambda: not client.containers(all=True), SECONDS), [
        (one["Names"], one["State"], one["Status"]) for one in client.containers(all=True)
    ]


def test_a_lost_container_ends_the_cell_and_no_more(
    podman: str, start_kernel: Callable[..., Kernel]
) -> None:
    kernel = start_kernel()
    kernel.ok("let x = 1")
    running = kernel.submit("for (;;) {}")
    time.sleep(0.5)
    (lost,) = docker.DockerClient(podman).containers.list()
    lost.kill()
    assert re.search("its container was (killed|removed)", kernel.finish(running).error)
    assert kernel.ok("typeof x").text == "'undefined'"


@pytest.mark.slow
def test_a_pool_waits_there_too(podman: str, start_kernel: Callable[..., Kernel]) -> None:
    client = docker.DockerClient(base_url=podman)

    def waiting() -> set[str]:
        found = client.containers.list(ignore_removed=True)
        return {one.id for one in found if one.name.startswith("crkernel-pool-")}

    asyncio.run(cli._make_golden_root("docker"))
    start_kernel("--CRKernel.pool=1").ok("1")
    assert eventually(waiting, SECONDS)
    before = waiting()
    kernel = start_kernel("--CRKernel.pool=1")
    kernel.ok("globalThis.x = 1")
    shown = kernel.ok("%status").shown
    assert "warm: a nest with a guest had waited" in shown
    assert re.search(r"container (\w{12})", shown)[1] in {one[:12] for one in before}
    kernel.ok("x = 2")
    kernel.ok("%undo")
    assert kernel.value("x") == 1
    assert eventually(lambda: waiting() and not waiting() & before, SECONDS), "it is full again"
    ended = CliRunner().invoke(cli.cli, ["pool", "--engine", "docker", "--empty"]).stdout
    assert ended.split()[-1] == "ended"
    assert not waiting()
    client.close()


def test_the_doctor_names_it(podman: str) -> None:
    said: list[str] = []
    assert examine(said.append, "docker"), said
    (line,) = [line for line in said if "Docker daemon" in line]
    assert re.fullmatch(f"ok   Docker daemon: Podman [0-9.]+ at {podman}", line)
