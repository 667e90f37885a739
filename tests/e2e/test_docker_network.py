"""Networks of guests in Docker, beyond what `test_network` shows of both engines."""

from __future__ import annotations

import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import containers
import pytest
from driver import Kernel, require_network
from test_network import Server, connect, get, own_address

from crkernel import registration
from crkernel.doctor import examine
from crkernel.engines import Limits, open_engine
from crkernel.engines.docker import container, images
from crkernel.errors import EngineUnavailable

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

Start = Callable[..., Kernel]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(own_address())
    yield server
    server.close()


def annex_of(kernel: Kernel) -> Any:
    """The one container beside that of the sandboxes."""
    own = kernel.container.id
    (found,) = [one for one in containers.of(kernel.pid) if one.id != own]
    return found


def test_the_annex_is_ordinary_but_for_its_network(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.network=full")
    kernel.ok("1")
    own, host = kernel.container.attrs, annex_of(kernel).attrs["HostConfig"]
    assert own["HostConfig"]["NetworkMode"] == "none"
    assert not own["HostConfig"]["Devices"]
    assert host["PidMode"] == f"container:{kernel.container.id}"
    assert [device["PathOnHost"] for device in host["Devices"]] == ["/dev/net/tun"]
    assert not host["Privileged"]
    assert not host["CapAdd"]
    assert not host.get("Mounts")
    for option in ("CapDrop", "ReadonlyRootfs", "AutoRemove", "SecurityOpt", "MaskedPaths"):
        assert host[option] == own["HostConfig"][option]
    annex = annex_of(kernel).id
    kernel.rewind(1)
    kernel.ok("%reset")
    assert annex_of(kernel).id == annex, "one serves all sandboxes"


@pytest.mark.parametrize("way", ["kill", "rm"])
def test_a_lost_annex_costs_connections_and_no_more(
    start_kernel: Start, server: Server, way: str
) -> None:
    kernel = start_kernel("--CRKernel.network=full")
    held = kernel.ok("globalThis.x = 1;" + connect(server))
    time.sleep(2)  # one that is lost at once is not replaced before it is asked for
    lost = annex_of(kernel)
    if way == "kill":
        lost.kill()
    else:
        lost.remove(force=True)
    kernel.messages_until(held, "stream", "way to the network was lost: its container was ")
    kernel.messages_until(held, "stream", "; it has another one")
    assert annex_of(kernel).id != lost.id
    assert kernel.value(get(server)) == "hello"
    assert kernel.value("x") == 1
    kernel.ok("sock.write('there?'); 0")
    assert kernel.until("failed") == "ECONNRESET"
    kernel.rewind(held.count)
    assert kernel.value(get(server)) == "hello"


def test_a_lost_container_takes_its_annex_along(start_kernel: Start, server: Server) -> None:
    kernel = start_kernel("--CRKernel.network=full")
    before = kernel.ok("globalThis.x = 1")
    lost = annex_of(kernel)
    kernel.container.kill()
    kernel.messages_until(before, "stream", "its container was")
    assert kernel.value(get(server)) == "hello"
    assert kernel.value("typeof x") == "undefined"
    assert annex_of(kernel).id != lost.id


@pytest.fixture
def neighbour() -> Iterator[tuple[str, str]]:
    """A network of Docker's, and the name of a container that serves there."""
    client = containers.client()
    network = client.networks.create("crkernel-test")
    program = (
        "import http.server, sys; "
        "http.server.HTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    web = client.containers.run(
        images.code_tag(),
        ["python3", "-c", program],
        detach=True,
        name="web",
        network=network.name,
        working_dir="/image/etc/default",
    )
    yield network.name, web.name
    web.remove(force=True)
    network.remove()


def test_a_network_of_dockers_is_as_for_any_container(
    neighbour: tuple[str, str], start_kernel: Start, server: Server
) -> None:
    network, name = neighbour
    local = Server("127.0.0.1")
    try:
        kernel = start_kernel("--CRKernel.network=full", f"--CRKernel.docker_network={network}")
        assert kernel.value(f"(await fetch('http://{name}:8000/')).status") == 200
        assert kernel.value(get(server)) == "hello"
        (gateway,) = [
            one["Gateway"]
            for one in containers.client().networks.get(network).attrs["IPAM"]["Config"]
        ]
        for address in ("127.0.0.1", "10.0.2.2", "10.0.2.3", "10.0.2.100", gateway):
            limit = "{ signal: AbortSignal.timeout(1000) }"
            kernel.fails(f"await fetch('http://{address}:{local.port}/', {limit})")
        assert local.accepted == 0
    finally:
        local.close()


def test_other_containers_networks_stay_shut(start_kernel: Start) -> None:
    """A guest's own servers are for its own sandbox, also for one that has a network."""
    other = start_kernel("--CRKernel.network=full")
    port = other.value(
        "new Promise((done) => { const s = require('node:net').createServer();"
        " s.listen(0, '0.0.0.0', () => done(s.address().port)) })"
    )
    kernel = start_kernel("--CRKernel.network=full")
    for address in ("127.0.0.1", "10.0.2.100", own_address()):
        kernel.fails(
            f"await fetch('http://{address}:{port}/', {{ signal: AbortSignal.timeout(1000) }})"
        )


def registered_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Let the doctor think that kernels are."""
    found = registration.find("crkernel-docker")
    assert found is not None
    told = dataclasses.replace(found, arguments=arguments)
    monkeypatch.setattr(registration, "find", lambda _: told)


def test_the_doctor_tries_a_network_where_kernels_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    require_network()
    said: list[str] = []
    monkeypatch.setattr(container, "TUN", "/dev/net/no-such")
    assert examine(said.append, "docker"), said
    assert "network" not in said[-1]
    full = ("--CRKernel.network=full", "--CRKernel.docker_network=host")
    registered_with(monkeypatch, *full)
    assert not examine(said.append, "docker")
    assert said[-1].startswith("FAIL dump and restore: no guest can have a network: ")
    assert said[-1].endswith("sudo modprobe tun; sudo chmod 666 /dev/net/tun")
    monkeypatch.undo()
    registered_with(monkeypatch, *full)
    assert examine(said.append, "docker"), said
    assert said[-1].endswith(", with a network")


async def _refused() -> EngineUnavailable:
    engine = open_engine("docker", Limits.default())
    engine.network, engine.docker_network = "full", "host"
    try:
        await engine.start()
        with pytest.raises(EngineUnavailable) as caught:
            await engine.sandbox()
        engine.network = "none"
        await (await engine.sandbox()).warm()
    finally:
        await engine.close()
    return caught.value


async def test_a_machine_without_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "TUN", "/dev/net/no-such")
    error = await _refused()
    assert str(error) == (
        "no guest can have a network: the daemon's machine has no /dev/net/no-such"
    )
    assert "modprobe tun" in str(error.hint)


async def test_a_device_that_is_closed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = tmp_path / "tun"
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    monkeypatch.setattr(container, "TUN", str(device))
    error = await _refused()
    assert "keeps closed to users its" in str(error)
    assert "chmod 666 /dev/net/tun" in str(error.hint)
