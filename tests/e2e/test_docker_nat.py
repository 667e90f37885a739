"""Networks of guests where Docker is as it comes: with its bridge `docker0`, and NAT."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import containers
import pytest
from _daemon import daemon
from driver import Kernel
from test_network import Server, connect, get

from crkernel.engines.docker import build

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow]

HERE, THERE = "198.18.77.1", "198.18.77.2"
"""This machine, and the daemon's: a network namespace, so that no rule of NAT is left here."""


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[str, ...]]:
    """What is put before a command that is to run there."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        there = ("nsenter", f"--target={holder.pid}", "--net")
        veth = ("ip", "link", "add", "crk-here", "type", "veth", "peer", "name", "crk-there")
        run(*veth, "netns", str(holder.pid))
        run("ip", "address", "add", f"{HERE}/30", "dev", "crk-here")
        run("ip", "link", "set", "crk-here", "up")
        run(*there, "ip", "link", "set", "lo", "up")
        run(*there, "ip", "address", "add", f"{THERE}/30", "dev", "crk-there")
        run(*there, "ip", "link", "set", "crk-there", "up")
        run(*there, "ip", "route", "add", "default", "via", HERE)
        yield there
        holder.stdin.close()


@pytest.fixture(scope="module")
def _daemon(machine: tuple[str, ...]) -> Iterator[None]:
    """One that has the image; DOCKER_HOST names it."""
    with daemon(within=machine) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        patch.delenv("DOCKER_TLS_VERIFY", raising=False)
        containers.client.cache_clear()
        build.build(print, from_tree=True)
        yield
        containers.client().close()
        containers.client.cache_clear()


@pytest.fixture
def server(machine: tuple[str, ...]) -> Iterator[Server]:
    assert machine
    server = Server(HERE)
    yield server
    server.close()


@pytest.mark.usefixtures("_daemon")
@pytest.mark.parametrize("network", ["default", "own"])
def test_a_guest_gets_out_by_nat(
    network: str, server: Server, start_kernel: Callable[..., Kernel]
) -> None:
    client = containers.client()
    assert client.networks.list(names=["bridge"])
    if network == "own":
        client.networks.create(network)
    kernel = start_kernel("--CRKernel.network=full", f"--CRKernel.docker_network={network}")
    held = kernel.ok("globalThis.x = 1;" + connect(server))
    assert kernel.value(get(server)) == "hello"
    assert server.peers == {THERE}, "it comes from the daemon's machine"
    kernel.rewind(held.count)
    assert kernel.until("failed") == "ECONNRESET"
    assert kernel.value(get(server)) == "hello"
    time.sleep(2)  # an annex that is lost at once is not replaced before it is asked for
    own = kernel.container.id
    (annex,) = [one for one in containers.of(kernel.pid) if one.id != own]
    bridge = "bridge" if network == "default" else network
    assert list(annex.attrs["NetworkSettings"]["Networks"]) == [bridge]
    annex.kill()
    assert kernel.value("new Promise((done) => setTimeout(done, 3000))") is None
    assert kernel.value(get(server)) == "hello"
