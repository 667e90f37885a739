"""JupyterLab and crkernel in one container, as docs/deploy.md has it, by Compose 2.

The registry of Docker need not be reached: the Debian that deploy/Dockerfile begins with is a fresh
one of mmdebstrap's, which knows this machine's certificates. The tests' daemon has no network for
builds; they borrow the host's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import containers
import pytest
from _driver import eventually
from tornado.websocket import WebSocketClientConnection, websocket_connect

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
_BUILD_SECONDS = 900.0
_BASE = "debian:trixie-slim"
_SOURCE = "deb [check-valid-until=no] http://deb.debian.org/debian trixie main"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def compose() -> list[str]:
    """Compose 2, by whatever name it is here."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            asked = [*command, "version", "--short"]
            said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            if re.match(r"v?([2-9]|\d\d)\.", said):
                return command
    pytest.skip("there is no Compose 2, which knows systempaths: make compose")


@pytest.fixture(scope="module")
def _base() -> None:
    """The Debian of the Dockerfile, in the daemon."""
    made = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"]
    made += [f"--customize-hook=upload {_CERTIFICATES} /certificates", "trixie", "-", _SOURCE]
    change = "ENV SSL_CERT_FILE=/certificates PIP_CERT=/certificates"
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(made, stdout=subprocess.PIPE, stderr=log) as debian,
    ):
        imported = ["docker", "import", "--change", change, "-", _BASE]
        subprocess.run(imported, stdin=debian.stdout, check=True, capture_output=True)
        debian.wait()
        log.seek(0)
        assert debian.returncode == 0, log.read()


@pytest.fixture(scope="module")
def lab(_base: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Up, under a port of its own: the container's id and the address with its token."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = tmp_path_factory.mktemp("compose") / "here.yaml"
    here.write_text(
        "services:\n  lab:\n    build: {network: host}\n"
        f'    ports: !override ["127.0.0.1:{port}:8888"]\n'
    )
    files = ["-f", f"{ROOT}/deploy/compose.yaml", "-f", str(here), "-p", f"crkernel-{port}"]

    def run(*words: str, seconds: float = SECONDS) -> str:
        done = subprocess.run(
            [*compose(), *files, *words],
            env=os.environ | {"DOCKER_BUILDKIT": "0"},  # apt's docker.io has no buildx
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    run("build", seconds=_BUILD_SECONDS)
    # Stages, which that builder keeps, and other tests would take for their own builds'.
    containers.client().images.prune(filters={"dangling": True})
    try:
        run("up", "--detach")
        told: list[str] = []

        def has_told() -> bool:
            told[:] = re.findall(r"\?token=(\w+)", run("logs", "--no-log-prefix", "lab"))
            return bool(told)

        assert eventually(has_told, SECONDS), run("logs", "lab")
        yield run("ps", "--quiet", "lab").strip(), f"127.0.0.1:{port} {told[0]}"
    finally:
        run("down", "--volumes", "--timeout", "2")


def ask(address: str, path: str, **body: Any) -> Any:
    """JupyterLab's REST API; what it answers."""
    host, token = address.split()
    request = urllib.request.Request(
        f"http://{host}/api/{path}",
        json.dumps(body).encode() if body else None,
        {"Authorization": f"token {token}"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


class Client:
    """One front end, over a web socket."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket

    async def run(self, code: str) -> str:
        """Execute a cell; all texts that it showed, and its error if there was one."""
        header = {"msg_id": uuid4().hex, "msg_type": "execute_request", "session": "test"}
        header |= {"username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self._socket.write_message(json.dumps(message | {"channel": "shell"}))
        shown = ""
        while (data := await self._socket.read_message()) is not None:
            said = json.loads(data)
            if said["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            content = said["content"]
            shown += content.get("text", "") if said["msg_type"] == "stream" else ""
            shown += content.get("data", {}).get("text/plain", "")
            shown += "\n".join(content.get("traceback", []))
            if said["msg_type"] == "status" and content["execution_state"] == "idle":
                return shown
        raise AssertionError(f"the kernel hung up: {shown}")


async def test_a_notebook_in_it_travels(lab: tuple[str, str]) -> None:
    _, address = lab
    assert "crkernel" in ask(address, "kernelspecs")["kernelspecs"]
    kernel = ask(address, "kernels", name="crkernel")["id"]
    host, token = address.split()
    socket = await websocket_connect(f"ws://{host}/api/kernels/{kernel}/channels?token={token}")
    client = Client(socket)
    await client.run("let x = 1; require('fs').writeFileSync('/home/work/f', 'one')")
    await client.run("x = 2; require('fs').writeFileSync('/home/work/f', 'two')")
    await client.run("%rewind 1")
    assert "[ 1, 'one' ]" in await client.run("[x, require('fs').readFileSync('f', 'utf8')]")
    assert "local" in await client.run("%status")
    socket.close()


def test_golden_roots_are_kept_with_what_is_the_users(lab: tuple[str, str]) -> None:
    container = containers.client().containers.get(lab[0])
    ask(lab[1], "kernels", name="crkernel")

    def is_kept() -> bool:
        words = ["find", "/home/jovyan/.cache/crkernel/golden", "-name", "crkernel.json"]
        return bool(container.exec_run(words, stderr=False).output)

    assert eventually(is_kept, SECONDS)


def test_the_container_is_confined(lab: tuple[str, str]) -> None:
    container = containers.client().containers.get(lab[0])
    host = container.attrs["HostConfig"]
    assert not host["Privileged"]
    assert not host["CapAdd"]
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"]
    assert all("docker.sock" not in mount["Source"] for mount in container.attrs["Mounts"])
    status = Path(f"/proc/{containers.main(container).pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["1000"] * 4
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_the_doctor_is_content_there(lab: tuple[str, str]) -> None:
    container = containers.client().containers.get(lab[0])
    code, said = container.exec_run(["crkernel", "doctor"])
    assert code == 0, said.decode()
    assert b"ok   dump and restore" in said
