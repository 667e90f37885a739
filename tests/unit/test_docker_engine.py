"""What of the engine docker needs no daemon: how it finds one, and what it says when that fails."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, ClassVar

import pytest

from crkernel import image
from crkernel.doctor import examine
from crkernel.engines import Limits, machine
from crkernel.engines.docker import archive, build, checks, container, images, pool
from crkernel.engines.docker import daemon as daemon_module
from crkernel.engines.docker.complaints import unreachable
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.docker.endpoint import Endpoint
from crkernel.engines.docker.readiness import ready
from crkernel.engines.docker.stream import Frames, Stream
from crkernel.errors import (
    CRKernelError,
    DaemonRefused,
    EngineError,
    EngineUnavailable,
    ImageMissing,
)
from crkernel.guest import enter, gate, wire

VERSION = {"ApiVersion": "1.41", "Version": "20.10.24", "Arch": "amd64"}
INFO = {"KernelVersion": "6.1.0-13-amd64", "SecurityOptions": ["name=seccomp,profile=default"]}


class _Handler(BaseHTTPRequestHandler):
    """Answers as a daemon would; a path without an answer is 404."""

    answers: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        """None is done."""
        self._send(404, {"message": f"no such thing: {self.path}"})

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        for ending, answer in self.answers.items():
            if path.endswith(ending):
                self._send(200, answer)
                return
        self._send(404, {"message": f"no such thing: {path}"})

    def _send(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        """There is none."""
        return ""


@contextmanager
def daemon_saying(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]
) -> Iterator[None]:
    """A daemon's socket that gives these answers, by how the path of the request ends."""
    path = folder / "docker.sock"
    handler = type("Handler", (_Handler,), {"answers": answers})
    with ThreadingUnixStreamServer(str(path), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def complaint(call: Any) -> CRKernelError:
    """What a call raises: one or two lines with a remedy."""
    with pytest.raises(CRKernelError) as caught:
        call()
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    error = complaint(checks.check_daemon)
    assert "no Docker daemon answers at unix:///nowhere/docker.sock" in error.message
    assert "systemctl start docker" in str(error.hint)


def test_ssh_without_paramiko(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("docker.api.client.SSHHTTPAdapter")
    monkeypatch.setenv("DOCKER_HOST", "ssh://127.0.0.1:1")
    error = complaint(checks.check_daemon)
    assert "paramiko" in error.message
    assert error.hint == install_sdk()


def install_sdk() -> str:
    """A command that works wherever crkernel was installed from."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    return f"pip install {shlex.join(project['optional-dependencies']['docker'])}"


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    error = complaint(checks.check_daemon)
    assert error.message == "the docker SDK for Python is not installed"
    assert error.hint == install_sdk()


def test_a_socket_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "docker.sock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert "no Docker daemon answers" in complaint(checks.check_daemon).message


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with daemon_saying(tmp_path, monkeypatch, {"/version": VERSION}):
        assert checks.check_daemon()  # which imports what another account could not
        (tmp_path / "docker.sock").chmod(0)
        before = os.geteuid()
        try:
            if before == 0:
                os.seteuid(54321)
            error = complaint(checks.check_daemon)
        finally:
            os.seteuid(before)
    assert "you may not use the Docker daemon" in error.message
    assert "usermod -aG docker" in str(error.hint)


def test_a_key_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is not what it needs a right for."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout key.pem"
    subprocess.run([*make.split(), "-out", "ca.pem"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "cert.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    (tmp_path / "key.pem").chmod(0)
    less = [f"--{which}=-dac_override,-dac_read_search" for which in ("bounding-set", "inh-caps")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("DOCKER_HOST", host)
        doctor = [sys.executable, "-m", "crkernel", "doctor", "--engine", "docker"]
        command = ["setpriv", *less, *doctor] if os.geteuid() == 0 else doctor
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert f"a certificate or key for the Docker daemon at {host} cannot be read" in said
    assert "DOCKER_CERT_PATH" in said
    assert "usermod" not in said


@pytest.mark.parametrize(
    ("host", "words", "remedy"),
    [
        ("tcp://127.0.0.1:1", "no Docker daemon answers at tcp://127.0.0.1:1", "start it"),
        ("tcp://nobody.invalid:1", "answers at tcp://nobody.invalid:1: Failed to resolve", "HOST"),
        ("abacus", "no Docker daemon can be at tcp://abacus", "ssh://USER@HOST"),
        ("abacus://x", "no Docker daemon can be at abacus://x", "ssh://USER@HOST"),
        ("unix://", "no Docker daemon can be at unix://", "ssh://USER@HOST"),
    ],
)
def test_an_address_where_none_is(
    host: str, words: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.setenv("DOCKER_HOST", host)
    error = complaint(checks.check_daemon)
    assert words in error.message
    assert "ConnectionPool" not in error.message
    assert remedy in str(error.hint)


def test_tls_without_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    error = complaint(checks.check_daemon)
    assert error.message == "no certificate for the Docker daemon at tcp://127.0.0.1:1"
    assert "cert.pem" in str(error.hint)


@pytest.mark.parametrize("name", ["ca.pem", ""])
def test_tls_with_a_certificate_that_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is missing, or all hold something else."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    for one in {"ca.pem", "cert.pem", "key.pem"} - {name}:
        (tmp_path / one).write_text("abacus")
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("DOCKER_HOST", host)
        error = complaint(checks.check_daemon)
    assert f"certificate for the Docker daemon at {host}" in error.message
    assert "DOCKER_CERT_PATH" in str(error.hint)


def test_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            monkeypatch.setenv("DOCKER_HOST", f"127.0.0.1:{server.server_port}")
            error = complaint(checks.check_daemon)
        finally:
            server.shutdown()
            thread.join()
    assert f"answers at tcp://127.0.0.1:{server.server_port} is no Docker daemon" in error.message


def test_ssh_that_does_not_get_there() -> None:
    for said in ("Connection aborted.", "me@abacus: Permission denied (publickey)."):
        error = unreachable("ssh://me@abacus", ConnectionError(said))
        assert error.hint == "see why: ssh ssh://me@abacus docker version"


def test_what_ails_several_checks_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    said: list[str] = []
    assert not examine(said.append, "docker")
    assert len([line for line in said if "no Docker daemon answers" in line]) == 1
    assert said[-1].startswith("FAIL dump and restore: not tried")
    assert said[-1].endswith("crkernel doctor --engine docker")


def completed(engine: str) -> subprocess.CompletedProcess[str]:
    """What a shell is told that can follow `crkernel image rm --engine ENGINE`."""
    words = f"crkernel image rm --engine {engine} "
    asked = {"_CRKERNEL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"}
    script = str(Path(sys.executable).with_name("crkernel"))
    return subprocess.run(
        [script], env=os.environ | asked, capture_output=True, text=True, check=False
    )


def test_completion_offers_what_rm_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images" / ("a" * 12)).mkdir(parents=True)
    monkeypatch.setenv("CRKERNEL_DATA", str(tmp_path))
    listed = [{"RepoTags": ["crkernel:1", "crkernel:1-2"], "Size": 1, "Created": 1}]
    answers = {"/version": VERSION, "/images/json": listed}
    with daemon_saying(tmp_path, monkeypatch, answers):
        assert completed("docker").stdout.split() == ["plain,crkernel:1", "plain,crkernel:1-2"]
        assert completed("local").stdout.split() == ["plain," + "a" * 12]


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "abacus://x"])
def test_completion_without_a_daemon_is_silent(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    ended = completed("docker")
    assert (ended.stdout.strip(), ended.stderr) == ("", "")


def test_too_old_a_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = VERSION | {"ApiVersion": "1.39"}
    with daemon_saying(tmp_path, monkeypatch, {"/version": old}):
        error = complaint(checks.check_daemon)
    assert "speaks API 1.39, 1.41 is needed" in error.message
    assert "20.10" in str(error.hint)


def test_another_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "architecture", lambda: "x86_64")
    answers = {"/version": VERSION | {"Arch": "arm64"}, "/info": INFO}
    with daemon_saying(tmp_path, monkeypatch, answers):
        assert "the daemon's machine is arm64" in complaint(checks.check_machine).message


def test_too_old_a_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "architecture", lambda: "x86_64")
    answers = {"/version": VERSION, "/info": INFO | {"KernelVersion": "4.19.0-23-amd64"}}
    with daemon_saying(tmp_path, monkeypatch, answers):
        assert "Linux 4.19.0-23-amd64, older than" in complaint(checks.check_machine).message


def test_no_seccomp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "architecture", lambda: "x86_64")
    answers = {"/version": VERSION, "/info": INFO | {"SecurityOptions": None}}
    with daemon_saying(tmp_path, monkeypatch, answers):
        assert "no seccomp" in complaint(checks.check_machine).message


def test_limits_that_the_daemon_cannot_keep_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "architecture", lambda: "x86_64")
    answers = {"/version": VERSION, "/info": INFO | {"PidsLimit": False}}
    with daemon_saying(tmp_path, monkeypatch, answers):
        assert checks.check_machine().endswith("it cannot limit max_processes")


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ([], "has no image"),
        (
            [{"RepoTags": ["crkernel:0123456789ab"], "Size": 1, "Created": 1}],
            "what is there, crkernel:0123456789ab, is of another version",
        ),
    ],
)
def test_no_image(
    listed: list[Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "architecture", lambda: "x86_64")
    answers = {"/version": VERSION, "/images/json": listed}
    with daemon_saying(tmp_path, monkeypatch, answers):
        error = complaint(checks.check_image)
    assert isinstance(error, ImageMissing)
    assert words in error.message
    assert error.hint == "run: crkernel image build --engine docker"


async def test_a_daemon_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon_saying(tmp_path, monkeypatch, {"/version": VERSION}):
        daemon = await Daemon.connect()
    monkeypatch.setattr(daemon_module, "_TIMEOUT", 0.1)
    (tmp_path / "docker.sock").unlink()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen()
        with pytest.raises(EngineError, match="opens no stream within") as caught:
            await daemon.attach("abc")
    assert caught.value.hint == "see whether the daemon is well: docker version"


def test_a_container_that_is_being_removed_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = "docker.io/library/crkernel:tag"  # as Podman says
    found = {"Id": "abc", "Names": None, "Image": image, "Created": 1}
    waits = found | {"Names": ["/crkernel-pool-x-0"]}
    with daemon_saying(
        tmp_path, monkeypatch, {"/version": VERSION, "/containers/json": [found, waits]}
    ):
        (only,) = asyncio.run(pool.listed())
    assert (only.name, only.image) == ("crkernel-pool-x-0", "crkernel:tag")


def test_an_unknown_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "abacus")
    with pytest.raises(EngineUnavailable, match="abacus"):
        asyncio.run(Daemon.connect())


@pytest.mark.parametrize(
    ("answers", "tries"),
    [
        ([(409, "removal is already in progress")], 1),
        ([(500, "container abc does not exist: no such container")], 1),
        ([(500, "container state improper"), (200, "")], 2),
        ([(500, "container state improper")] * 3, 3),
    ],
)
def test_a_container_is_removed_as_soon_as_podman_can(
    answers: list[tuple[int, str]],
    tries: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def answer(self: _Handler) -> None:
        status, message = answers[len(asked)]
        asked.append(self.path)
        self._send(status, {"message": message})

    monkeypatch.setattr(_Handler, "do_DELETE", answer, raising=False)
    monkeypatch.setattr(container, "_PAUSES", (0, 0, 0))

    async def remove() -> None:
        await container.remove(await Daemon.connect(), "abc")

    version = VERSION | {"Components": [{"Name": "Podman Engine"}]}
    with daemon_saying(tmp_path, monkeypatch, {"/version": version}):
        asyncio.run(remove())
    assert len(asked) == tries


def test_a_name_is_taken_until_the_container_before_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one is going by itself: Docker neither gives its name away nor removes it once more."""
    said: list[str] = []

    def answer(self: _Handler) -> None:
        said.append(step := self.path.split("?")[0].rpartition("/")[2])
        going = "wait" not in said
        if step in ("wait", "start") or (step == "create" and not going):
            self._send(200, {"Id": "abc", "StatusCode": 0})
        else:
            self._send(409, {"message": "is already in progress"})

    monkeypatch.setattr(_Handler, "do_POST", answer, raising=False)
    monkeypatch.setattr(_Handler, "do_DELETE", answer, raising=False)

    async def start() -> None:
        await container.succeed(await Daemon.connect(), "crkernel:tag", LIMITS, "crkernel-name")

    with daemon_saying(tmp_path, monkeypatch, {"/version": VERSION, "/info": INFO}):
        asyncio.run(start())
    assert said[-2:] == ["create", "start"]


# -- what containers are made with -------------------------------------------------------------

LIMITS = Limits(2 << 30, 256, 1 << 30, 1 << 30, 1 << 30, cpus=1.5)


def body(*security: str, podman: bool = False, **info: Any) -> dict[str, Any]:
    """As it is posted, for a daemon with these security options."""
    return container.body(
        "crkernel:tag",
        LIMITS,
        golden="volume",
        labels={},
        info={"SecurityOptions": list(security), **info},
        patience=1.0,
        podman=podman,
    )


def test_defaults_are_those_of_the_smaller_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 48 << 30)
    usual = replace(Limits.default(), disk_size=1 << 30)
    assert (usual.memory, usual.on(96 << 30)) == (16 << 30, usual)
    there = usual.on(6 << 30)
    assert (there.memory, there.staging_size) == (2 << 30, 2 << 30)
    assert there.disk_size == 1 << 30, "it was set"
    assert there.on(6 << 30) == there


def test_limits_become_dockers_own() -> None:
    host = body()["HostConfig"]
    assert host["NanoCpus"] == 1_500_000_000
    assert host["Memory"] == host["MemorySwap"] == (4 << 30) + (256 << 20)
    assert host["PidsLimit"] == 3 * 256


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("name=seccomp,profile=default", 900_000_000, 904_194_303),
        ("name=rootless", 10_000, 59_999),
        ("name=userns", 10_000, 59_999),
    ],
)
def test_the_user_is_one_that_the_daemon_has(said: str, least: int, most: int) -> None:
    user, group = map(int, body(said)["User"].split(":"))
    assert user == group
    assert least <= user <= most


def test_apparmor_is_named_only_where_there_is_one() -> None:
    assert "apparmor=unconfined" in body("name=apparmor")["HostConfig"]["SecurityOpt"]
    assert "apparmor=unconfined" not in body()["HostConfig"]["SecurityOpt"]


def test_podman_takes_the_same_in_other_words() -> None:
    host = body("name=seccomp,profile=default", podman=True, NCPU=2)["HostConfig"]
    options = dict(one.split("=", 1) for one in host["SecurityOpt"] if "=" in one)
    assert json.loads(Path(options["seccomp"]).read_text())["defaultAction"] == "SCMP_ACT_ERRNO"
    assert options["unmask"] == "ALL"
    assert options["mask"].split(":") == host["MaskedPaths"]
    assert "/sys/devices/system/cpu/cpu1/thermal_throttle" in host["MaskedPaths"]
    assert {one["Name"] for one in host["Ulimits"]} == {"nofile", "nproc"}


def test_an_annex_is_made_like_the_container_that_it_is_beside() -> None:
    kernels = {"Id": "abc", "Config": {"Image": "crkernel:tag", "User": "12345:12345"}}
    options = container.for_courier(LIMITS)
    made = container.annex_body(kernels, "bridge", "{}", {}, options, podman=False)
    usual, host = body()["HostConfig"], made["HostConfig"]
    assert (made["Image"], made["User"]) == ("crkernel:tag", "12345:12345")
    assert (host.pop("NetworkMode"), host.pop("PidMode")) == ("bridge", "container:abc")
    assert [mount["Target"] for mount in host.pop("Mounts")] == [container.NPM_CACHE]
    differs = {name for name, value in host.items() if value != usual[name]}
    assert differs == {"Memory", "MemorySwap", "PidsLimit"}
    assert all(host[name] < usual[name] for name in differs)


def test_an_annex_for_uplinks_has_their_device_and_no_volume() -> None:
    options = container.for_uplinks(LIMITS)
    kernels = {"Id": "abc", "Config": {"Image": "crkernel:tag", "User": "12345:12345"}}
    host = container.annex_body(kernels, "host", "{}", {}, options, podman=False)["HostConfig"]
    assert [device["PathInContainer"] for device in host["Devices"]] == ["/dev/net/tun"]
    assert "Mounts" not in host
    assert host["CapDrop"] == ["ALL"]
    assert host["MemorySwap"] == host["Memory"] == options["Memory"]


def test_rootless_podman_has_few_user_ids() -> None:
    assert int(body(podman=True, Rootless=True)["User"].split(":")[0]) < 60_000


def test_the_registry_that_podman_names_is_left_out() -> None:
    assert container.short("docker.io/library/crkernel:1") == container.short("crkernel:1")


def test_a_new_version_of_the_code_is_another_image() -> None:
    assert images.code_tag() == f"{images.base_tag()}-{image.code_digest()}"
    assert images.code_tag().replace(":", "-golden-") == container.golden_volume(images.code_tag())


# -- streams -----------------------------------------------------------------------------------


@asynccontextmanager
async def stream_of(data: bytes) -> AsyncIterator[Stream]:
    """A stream from which just these bytes come."""
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            yield Stream(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()


def block(kind: int, data: bytes) -> bytes:
    """A block of Docker's multiplexed stream."""
    return struct.pack(">BxxxI", kind, len(data)) + data


async def test_stderr_goes_to_the_log_and_stdout_comes_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = block(1, b"one") + block(2, b"a complaint\n") + block(1, b" two")
    async with stream_of(said) as stream:
        assert await stream.read(2) == b"on"
        assert await stream.read(100) == b"e"
        assert await stream.read(100) == b" two"
        assert await stream.read(100) == b""
    assert "a complaint" in caplog.text


async def test_who_writes_more_than_is_read_has_to_wait(tmp_path: Path) -> None:
    """And nothing is lost of it."""
    part = block(1, bytes(1 << 16))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
        server.listen()
        daemon = Daemon(Endpoint(f"unix://{tmp_path}/docker.sock", None), Any, {})
        stream = await daemon._open()
        program, _ = server.accept()
    with program:
        program.setblocking(False)
        sent, idle = 0, 0
        while idle < 20:  # turns of the loop, which takes what it wants to take in each
            try:
                sent += program.send(part[sent % len(part) :])
                idle = 0
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0)
            assert sent < 16 << 20, "nobody reads, and there is no end to what is taken"
    came = 0
    while data := await stream.read(1 << 20):
        came += len(data)
    blocks, rest = divmod(sent, len(part))
    assert came == (blocks << 16) + max(0, rest - 8)  # but for the last one's header
    stream.writer.close()
    await stream.writer.wait_closed()


async def test_a_stream_may_be_cut_anywhere() -> None:
    whole = block(1, wire.pack({"n": 1})) + block(1, wire.pack({"n": 2}))
    for cut in range(len(whole) - 1):
        async with stream_of(whole[:cut]) as stream:
            frames = Frames(stream)
            found = []
            while (message := await frames.next()) is not None:
                found.append(message["n"])
        assert found in ([], [1])


async def test_a_program_that_docker_cannot_start_is_told_in_dockers_words() -> None:
    said = b"OCI runtime exec failed: exec failed: no space"
    async with stream_of(block(1, said[:9]) + block(1, said[9:] + b"\r\n")) as stream:
        with pytest.raises(EngineError) as caught:
            await Frames(stream).next()
    assert caught.value.message == f"Docker refused: {said.decode()}"
    assert "journalctl -u docker" in str(caught.value.hint)


async def test_what_is_no_frame_breaks_a_stream() -> None:
    async with stream_of(block(1, wire.pack({"n": 1}) + b"OCI runtime")) as stream:
        with pytest.raises(EngineError, match="the stream into the container broke: a frame"):
            await Frames(stream).next()


@pytest.mark.parametrize(
    ("name", "command"),
    [("Engine", "sudo journalctl -u docker"), ("Podman Engine", "journalctl --user -u podman")],
)
async def test_the_log_that_is_named_is_the_daemons(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = VERSION | {"Components": [{"Name": name}]}
    with daemon_saying(tmp_path, monkeypatch, {"/version": version}):
        daemon = await Daemon.connect()
        for call in (partial(daemon.ask, "inspect_image"), daemon.attach):
            with pytest.raises(DaemonRefused) as caught:
                await call("none")
            assert command in str(caught.value.hint)
        with pytest.raises(DaemonRefused) as caught, daemon.build(iter(()), {}, {}):
            pass
        assert command in str(caught.value.hint)


async def test_the_remedy_where_namespaces_are_forbidden_can_be_pasted() -> None:
    said = wire.pack({"failed": "make user and mount namespaces", "reason": "forbidden"})
    async with stream_of(block(1, said)) as stream:
        with pytest.raises(EngineUnavailable) as caught:
            await ready(Frames(stream), 10)
    command = str(caught.value.hint).partition("namespaces: ")[2]
    assert re.fullmatch(r"sudo sysctl -e -w( [a-z_.]+=[0-9]+){3}", command)


async def test_a_refused_stream_says_why() -> None:
    answer = b'HTTP/1.1 409 Conflict\r\nContent-Length: 26\r\n\r\n{"message":"it is paused"}'
    async with stream_of(answer) as stream:
        with pytest.raises(EngineError, match="Docker refused: it is paused"):
            await stream.upgrade(b"POST / HTTP/1.1\r\n\r\n")


def knock(**greeting: str) -> tuple[socket.socket, int]:
    """As a gate does; it, and what comes out of its stream."""
    gate_end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate_end.connect(gate.ADDRESS)
    reader, writer = os.pipe()
    with Path(os.devnull).open() as null:
        socket.send_fds(gate_end, [json.dumps(greeting).encode()], [null.fileno(), writer])
    os.close(writer)
    return gate_end, reader


def test_a_nest_that_cannot_be_tells_the_kernel_whichever_gate_is_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "ADDRESS", f"\0crkernel-test-{os.getpid()}".encode())
    failure = {"failed": "build the mounts", "reason": "Permission denied"}
    with gate.listen() as listener:
        gates = [knock(link="sandbox", ticket="t"), knock(link="kernel")]
        enter._tell(listener, failure, 10.0)
        for connection, reader in gates:
            assert os.read(reader, 1000) == wire.pack(failure)
            os.close(reader)
            connection.close()
        enter._tell(listener, failure, 0.01)  # nobody comes, and it ends


# -- what the daemon is given -------------------------------------------------------------------


def test_the_dockerfile_says_what_the_recipe_says() -> None:
    text = archive.dockerfile()
    recipe = tomllib.loads(image.RECIPE.read_text())["debian"]
    assert f"\nARG SUITE={json.dumps(recipe['suite'])}\nFROM debian:${{SUITE}}-slim AS " in text
    for name, value in {
        "SOURCE": recipe["source"],
        "PACKAGES": " ".join(recipe["packages"]),
        "EXCLUDE": " ".join(recipe["exclude"]),
        "RECIPE": image.recipe_digest(),
    }.items():
        assert f"\nARG {name}={json.dumps(value)}\n" in text
    assert not re.search(r"^ARG \w+$", text, re.M)


def test_the_context_makes_the_same_image(tmp_path: Path) -> None:
    """The steps, in a package of their own, that the build container's Python imports."""
    data = archive.whole(archive.context({"one-1.0.0.tgz": b"abc"}))
    subprocess.run(["tar", "-x", "-C", tmp_path], input=data, check=True)
    script = "from crkernel import image, image_steps; print(image.recipe_digest())"
    command = [sys.executable, "-E", "-s", "-S", "-c", script]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == image.recipe_digest()
    assert (tmp_path / "npm/one-1.0.0.tgz").read_bytes() == b"abc"
    with tarfile.open(tmp_path / "around.tar") as around:
        assert around.getmember("usr").linkname == "image/usr"
        assert around.getmember("golden").mode == 0o777


def test_a_step_that_fails_shows_its_last_lines_and_the_way_out() -> None:
    said: list[str] = []
    lines = [
        {"stream": "Step 1/9 : RUN apt-get update\n"},
        {"stream": "I: Debian wi"},
        {"stream": "th criu\n\x1b[91mE: no mirr"},
        {"stream": "or\x1b[0m\n"},
        {"stream": "Removing intermediate container 0123\n"},
        {"error": "The command '/bin/sh -c apt-get' returned a non-zero code: 100"},
    ]
    with pytest.raises(EngineError) as caught:
        build._relay(iter(lines), said.append)
    assert said == ["Debian with criu"]
    assert caught.value.message == "docker build failed:\n    E: no mirror"
    assert str(caught.value.hint).endswith("crkernel image build --engine docker --from-tree")
    with pytest.raises(EngineError, match="no such stage"):
        build._relay(iter([{"error": "no such stage"}]), said.append)
