"""Kernels whose sandboxes live in Docker: what is different from those on the machine itself."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import containers
import driver
import pytest
from _driver import python, travels, wait_until
from docker.errors import NotFound
from driver import SECONDS, Kernel
from registry import Registry

from crkernel import registration
from crkernel.doctor import examine
from crkernel.engines import Limits, machine
from crkernel.engines.docker import checks, container, images
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.docker.engine import DockerEngine
from crkernel.engines.docker.stream import Frames
from crkernel.errors import EngineError, EngineUnavailable

pytestmark = [pytest.mark.e2e, pytest.mark.docker]


@pytest.fixture
def docker_kernel(start_kernel: Callable[..., Kernel]) -> Kernel:
    """A kernel with the engine docker."""
    return start_kernel()


def container_of(kernel: Kernel) -> Any:
    """Its one container, as it is now."""
    return kernel.container


def test_time_travel(docker_kernel: Kernel) -> None:
    kernel = docker_kernel
    kernel.ok("let x = 1; require('fs').writeFileSync('f', 'one')")
    kernel.ok("x = 2; require('fs').writeFileSync('f', 'two')")
    look = "`${x} ${require('fs').readFileSync('f', 'utf8')}`"
    assert kernel.ok(look).text == "'2 two'"
    kernel.rewind(1)
    assert kernel.ok(look).text == "'1 one'"
    assert "docker" in kernel.ok("%status").shown
    assert "container" in kernel.ok("%status").shown


_COLLECTOR = """
import gc, threading, time
def collect():
    while True:
        gc.collect()
        time.sleep(0.005)
threading.Thread(target=collect, daemon=True).start()
"""


def test_whoever_waits_for_a_stream_is_not_collected(
    start_kernel: Callable[..., Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio knows tasks and the readers of streams weakly."""
    (tmp_path / "sitecustomize.py").write_text(_COLLECTOR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kernel = start_kernel()
    for _ in range(5):
        kernel.ok("%reset")
    assert kernel.value("1 + 1") == 2


def is_ordinary(container: Any) -> bool:
    """Whether it has no right that any container has not, and only so much of the machine."""
    host = container.attrs["HostConfig"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Binds"]
    assert not host["Devices"]
    assert host["ReadonlyRootfs"]
    assert host["AutoRemove"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert "no-new-privileges" in host["SecurityOpt"]
    return int(container.attrs["Config"]["User"].split(":")[0]) >= 10_000


def test_the_container_is_an_ordinary_one(docker_kernel: Kernel) -> None:
    docker_kernel.ok("1")
    assert is_ordinary(container_of(docker_kernel))
    ours = container_of(docker_kernel).attrs["HostConfig"]
    assert ours["NetworkMode"] == "none"
    usual = containers.client().containers.create(images.code_tag(), ["true"])
    masked = usual.attrs["HostConfig"]["MaskedPaths"]
    usual.remove()
    below_sys = {path for path in masked if path.startswith("/sys/")}
    assert below_sys
    assert below_sys <= set(ours["MaskedPaths"])


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """One that kernels to come are set to, with a package that it does not give out yet."""
    registry = Registry()
    registry.publish("slow", "1.0.0", {"index.js": "module.exports = 'here'"})
    registry.go_on.clear()
    monkeypatch.setenv("npm_config_registry", registry.url)
    yield registry
    registry.close()


@pytest.mark.parametrize("end", ["npm", "interrupt", "kernel", "container", "annex"])
def test_npm_has_a_container_that_ends_with_it(
    registry: Registry, start_kernel: Callable[..., Kernel], end: str
) -> None:
    kernel = start_kernel()
    kernel.ok("let x = 1")
    first = container_of(kernel)
    running = kernel.submit("%npm install slow")
    wait_until(lambda: registry.requests)
    (annex,) = [one for one in containers.of(kernel.pid) if one.id != first.id]
    assert is_ordinary(annex)
    assert annex.attrs["HostConfig"]["PidMode"] == f"container:{first.id}"
    if end == "kernel":
        os.kill(kernel.pid, signal.SIGKILL)
        wait_until(lambda: containers.of(kernel.pid) == [])
        return
    if end == "npm":
        registry.go_on.set()
    elif end == "interrupt":
        kernel.interrupt()
    else:
        (first if end == "container" else annex).kill()
    assert kernel.finish(running).status == ("ok" if end == "npm" else "error")
    if end == "annex":
        assert "NpmFailed: npm was ended: its container was " in running.error
    wait_until(lambda: annex.id not in [one.id for one in containers.of(kernel.pid)])
    if end == "container":
        kernel.run("0")  # of whose end it need not have heard yet
    assert kernel.ok("typeof x").text == ("'undefined'" if end == "container" else "'number'")
    assert running.status == "ok" or "slow" not in kernel.ok("%npm ls").stdout


@pytest.mark.parametrize("way", ["kill", "rm"])
def test_a_lost_container_ends_the_cell_and_no_more(docker_kernel: Kernel, way: str) -> None:
    kernel = docker_kernel
    kernel.ok("let x = 1")
    lost = container_of(kernel)
    running = kernel.submit("for (;;) {}")
    time.sleep(0.5)
    if way == "kill":
        lost.kill()
    else:
        lost.remove(force=True)
    failed = kernel.finish(running)
    assert "its container was killed" in failed.error
    assert kernel.ok("typeof x").text == "'undefined'"
    assert container_of(kernel).id != lost.id
    assert [one.id for one in containers.of(kernel.pid)] == [container_of(kernel).id]
    assert "lost together" in kernel.fails("%rewind 1").error
    kernel.ok("let y = 1")
    kernel.ok("y = 2")
    kernel.ok("%undo")
    assert kernel.ok("y").text == "1"


def test_a_container_lost_between_cells(docker_kernel: Kernel) -> None:
    kernel = docker_kernel
    before = kernel.ok("let x = 1")
    containers.nest(container_of(kernel)).send_signal(signal.SIGSEGV)
    kernel.messages_until(before, "stream", "its container was ended by SIGSEGV")
    assert kernel.ok("typeof x").text == "'undefined'"


def cut(container: Any, link: str) -> None:
    """Kill the gates of one kind, as when a network drops a connection."""
    for pid, command in container.top(ps_args="-eo pid,args")["Processes"]:
        if f'"link": "{link}"' in command:
            os.kill(int(pid), signal.SIGKILL)


def test_a_cut_link_to_the_nest_is_a_lost_container(docker_kernel: Kernel) -> None:
    kernel = docker_kernel
    kernel.ok("let x = 1")
    lost = container_of(kernel)
    running = kernel.submit("for (;;) {}")
    time.sleep(0.5)
    cut(lost, "kernel")
    failed = kernel.finish(running)
    assert re.search("its container|the connection to its container", failed.error)
    assert kernel.ok("typeof x").text == "'undefined'"
    assert container_of(kernel).id != lost.id
    assert [one.id for one in containers.of(kernel.pid)] == [container_of(kernel).id]
    wait_until(lambda: [one.id for one in containers.of(kernel.pid)] == [container_of(kernel).id])


def test_a_cut_stream_ends_its_sandbox_alone(docker_kernel: Kernel) -> None:
    """The past is in the nest, which goes on."""
    kernel = docker_kernel
    kernel.ok("let x = 1")
    container = container_of(kernel)
    running = kernel.submit("for (;;) {}")
    time.sleep(0.5)
    cut(container, "sandbox")
    failed = kernel.finish(running)
    assert "(checkpoint 1) is restored" in failed.error
    assert kernel.ok("x").text == "1"
    assert container_of(kernel).id == container.id


async def test_what_docker_says_of_a_program_that_it_cannot_start(docker_kernel: Kernel) -> None:
    docker_kernel.ok("1")
    stream = await (await Daemon.connect()).run(container_of(docker_kernel).id, ["/no-such"])
    with pytest.raises(EngineError, match=r"Docker refused: .*no such file") as caught:
        await Frames(stream).next()
    stream.writer.close()
    assert "\n" not in str(caught.value)


def test_a_killed_kernel_takes_its_container_along(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.ok("1")
    pid = kernel.pid
    assert containers.of(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not containers.of(pid))


def test_a_shut_down_kernel_leaves_nothing(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.ok("1")
    pid = kernel.pid
    kernel.manager.shutdown_kernel()
    wait_until(lambda: not containers.of(pid))


def test_a_restart_keeps_the_past(docker_kernel: Kernel) -> None:
    kernel = docker_kernel
    kernel.ok("let x = 'before'")
    container = container_of(kernel).id
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=SECONDS)
    assert kernel.ok("typeof x").text == "'undefined'"
    kernel.rewind("r1.1")
    assert kernel.ok("x").text == "'before'"
    assert container_of(kernel).id == container
    assert "the nest of before the restart" in kernel.ok("%status").shown


def test_the_guest_is_confined(docker_kernel: Kernel) -> None:
    kernel = docker_kernel
    status = kernel.value("require('fs').readFileSync('/proc/self/status', 'utf8')")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    seen = kernel.value("require('fs').readdirSync('/')")
    assert "crkernel" not in seen
    assert ".dockerenv" not in seen
    assert kernel.value("Object.keys(require('os').networkInterfaces())") == ["lo"]


def test_nothing_of_docker_is_in_reach(
    docker_kernel: Kernel, start_kernel: Callable[..., Kernel]
) -> None:
    """What people try in containers; test_escape has what they try in any sandbox."""
    port = start_kernel().value(
        "new Promise((done) => { const s = require('node:net').createServer();"
        " s.listen(4321, '0.0.0.0', () => done(s.address().port)) })"
    )
    found = python(
        docker_kernel,
        f"""
import glob
sockets = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"]
found = {{
    "sockets": [s for s in sockets if os.path.exists(s)],
    "abstract": [line for line in open("/proc/net/unix") if "@" in line],
    "another container": attempt(lambda: socket.create_connection(("127.0.0.1", {port}), 2)),
    "cgroup": call(165, 40, b"none", b"/tmp", b"cgroup", 0, b"memory"),
    "cgroup2": call(165, 40, b"none", b"/tmp", b"cgroup2", 0, 0),
    "release_agent": glob.glob("/sys/**/release_agent", recursive=True),
    "/sys": os.listdir("/sys"),
    "marks": [p for p in ("/.dockerenv", "/image", "/crkernel") if os.path.exists(p)],
    "disks": [d for d in os.listdir("/dev") if d.startswith(("sd", "vd", "nvme", "dm-", "loop"))],
}}
""",
    )
    assert found == {
        "sockets": [],
        "abstract": [],
        "another container": "ECONNREFUSED",
        "cgroup": "EPERM",
        "cgroup2": "EPERM",
        "release_agent": [],
        "/sys": [],
        "marks": [],
        "disks": [],
    }


async def test_npms_cache_goes_with_the_last_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some that look like the only ones of another user."""
    monkeypatch.setattr(images, "LABEL", "crkernel.test")
    monkeypatch.setattr(
        container, "owner", lambda: {"crkernel.host": "there", "crkernel.user": "1"}
    )
    client = containers.client()
    volume = client.volumes.create(container.npm_volume()).name
    tags = ["crkernel:one", "crkernel:two"]
    with io.BytesIO() as empty:
        tarfile.open(fileobj=empty, mode="w").close()
        for tag in tags:
            repository, _, name = tag.partition(":")
            changes = [f"LABEL crkernel.test={name}"]
            client.api.import_image_from_data(
                empty.getvalue(), repository=repository, tag=name, changes=changes
            )
    assert await images.remove("crkernel:one") == (["crkernel:one"], [])
    assert client.volumes.get(volume)
    assert await images.remove("crkernel:two") == (["crkernel:two", volume], [])
    with pytest.raises(NotFound):
        client.volumes.get(volume)


def test_an_option_that_the_daemon_refuses(start_kernel: Callable[..., Kernel]) -> None:
    refused = start_kernel("--CRKernel.cpus=1000").fails("1")
    assert "Docker refused: " in refused.error
    assert "change the setting that it is about" in refused.traceback
    assert len(refused.reply["traceback"]) <= 2


def test_the_doctor_finds_an_option_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_profile", lambda: "no profile")
    said: list[str] = []
    assert not examine(said.append, "docker")
    assert said[-1].startswith("FAIL dump and restore: Docker refused: ")
    assert "docs/security.md" in said[-1]
    assert len(said[-1].splitlines()) == 1


def test_the_doctor_finds_a_setting_that_the_daemon_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = registration.register(engine="docker", prefix=tmp_path) / "kernel.json"
    told = json.loads(spec.read_text())
    spec.write_text(json.dumps(told | {"argv": [*told["argv"], "--CRKernel.cpus=1000"]}))
    monkeypatch.setenv("JUPYTER_PATH", f"{tmp_path}/share/jupyter")
    said: list[str] = []
    assert not examine(said.append, "docker")
    assert len([line for line in said if line.startswith("FAIL")]) == 1
    assert said[-1].startswith("FAIL dump and restore: Docker refused: ")
    assert "change the setting that it is about" in said[-1]


def test_what_docker_does_not_have_is_refused(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel("--CRKernel.docker_network=no-such")
    kernel.ok("%config network = full")
    for refused in (kernel.fails("%npm view one"), kernel.fails("%reset")):
        assert "no-such" in refused.error
        assert "docker network ls" in refused.traceback
        assert len(refused.traceback.splitlines()) <= 2
    kernel.ok("%config network = none")
    kernel.ok("%reset")


def test_auto_takes_docker_where_there_is_no_local_image(
    start_kernel: Callable[..., Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRKERNEL_DATA", str(tmp_path))
    monkeypatch.setattr(driver, "engine", "local")  # the kernel that names none
    assert "container" in start_kernel().ok("%status").shown


def test_the_doctor_proves_it() -> None:
    said: list[str] = []
    assert examine(said.append, "docker"), said
    assert said[-1].startswith("ok   dump and restore: boot ")


@pytest.mark.alone
def test_a_daemon_that_stops_and_starts(docker_kernel: Kernel) -> None:
    kernel = docker_kernel
    kernel.ok("let x = 1")
    folder = Path(os.environ["DOCKERD_FOLDER"])  # run me by make test-docker
    running = kernel.submit("for (;;) {}")
    time.sleep(0.5)
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    failed = kernel.finish(running)
    assert re.search("its container (was killed|was removed|is out of reach)", failed.error)
    assert "there is no guest until this is mended" in failed.error
    wait_until(lambda: not (folder / "pid").exists())
    assert "no Docker daemon answers" in kernel.fails("1").error
    # In the background, to be ended by with-dockerd.
    subprocess.run(["sh", "-c", '"$0" &', folder / "start"], start_new_session=True, check=True)
    wait_until(containers.answers)
    assert kernel.ok("typeof x").text == "'undefined'"
    assert [one.id for one in containers.of(kernel.pid)] == [container_of(kernel).id]


def test_memory_of_all_together_is_limited_by_docker(start_kernel: Callable[..., Kernel]) -> None:
    """Ten processes of 200 MB are within the limit of each, and beyond that of the container."""
    kernel = start_kernel(
        *("--CRKernel.memory=512M", "--CRKernel.disk_size=64M", "--CRKernel.staging_size=64M"),
    )
    kernel.ok("let x = 1")
    hog = "const b = Buffer.alloc(300e6, 1); setTimeout(() => {}, 1e6)"
    kernel.run(
        "const { spawn } = require('child_process');"
        f"for (let i = 0; i < 10; i++) spawn('node', ['-e', {hog!r}]);"
        "await new Promise((r) => setTimeout(r, 8000)); 0",
    )
    assert kernel.ok("1 + 1").text == "2"
    assert container_of(kernel).attrs["HostConfig"]["Memory"] < 1 << 30
    told = kernel.fails("process.exit(3)").error
    assert "exited with code 3" in told, "a child was ended for its memory, not the guest"


def test_a_limit_that_is_raised_is_the_containers_too(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel(
        *("--CRKernel.memory=512M", "--CRKernel.disk_size=64M", "--CRKernel.staging_size=64M"),
    )
    kernel.ok("%config memory=2G")
    kernel.ok("%config max_processes=600")
    kernel.ok("%reset")
    assert kernel.ok("Buffer.alloc(1.2e9, 1).length").text == "1200000000"
    host = container_of(kernel).attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == (2 << 30) + (128 << 20) + (256 << 20)
    assert host["PidsLimit"] == 1800
    kernel.ok("%config memory=512M")
    kernel.ok("%reset")
    assert container_of(kernel).attrs["HostConfig"] == host, "guests of before may come back"


async def test_defaults_fit_the_daemons_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one has, of a sudden, more."""
    real = machine.memory()
    monkeypatch.setattr(machine, "memory", lambda: 64 << 30)
    engine = DockerEngine(Limits.default())
    try:
        await engine.start()
        (made,) = containers.of()
        assert made.attrs["HostConfig"]["Memory"] < max(real, 1 << 30)
        engine.limits = replace(Limits.default(), max_processes=100)
        assert engine.limits.memory < real
    finally:
        await engine.close()


def test_a_guest_ended_for_the_memory_of_all_says_so(start_kernel: Callable[..., Kernel]) -> None:
    """It offers itself to Linux, so that it is the one who is ended, and not those who hoard."""
    kernel = start_kernel(
        *("--CRKernel.memory=512M", "--CRKernel.disk_size=64M", "--CRKernel.staging_size=64M"),
    )
    kernel.ok("let x = 1")
    hog = "const b = Buffer.alloc(300e6, 1); setTimeout(() => {}, 1e6)"
    error = kernel.fails(
        "require('fs').writeFileSync('/proc/self/oom_score_adj', '1000'); x = 2;"
        "const { spawn } = require('child_process');"
        f"for (let i = 0; i < 10; i++) spawn('sh', ['-c', `echo 500 > /proc/self/oom_score_adj; "
        f"exec node -e {hog!r}`]);"
        "await new Promise((r) => setTimeout(r, 20000))",
    ).error
    assert "ran out of memory (limit memory = 512 MiB" in error
    kernel.rewind(1)  # it may be further back, if those who hoard have hit the restore as well
    assert kernel.ok("x").text == "1"
    kill = "x = 3; process.kill(process.pid, 'SIGKILL'); await new Promise(() => {})"
    assert "SIGKILL" in kernel.fails(kill).error


def test_a_nest_ended_for_the_memory_of_all_says_so(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel(
        *("--CRKernel.memory=512M", "--CRKernel.disk_size=64M", "--CRKernel.staging_size=64M"),
    )
    kernel.ok("let x = 1")
    victim = containers.nest(container_of(kernel))
    Path(f"/proc/{victim.pid}/oom_score_adj").write_text("1000")
    error = kernel.fails(
        "const { spawn } = require('child_process'); for (let i = 0; i < 4; i++)"
        "spawn('node', ['-e', 'const b = Buffer.alloc(300e6, 1); setTimeout(() => {}, 1e6)']);"
        "await new Promise(() => {})",
    ).error
    assert "its container ran out of memory (limits memory, " in error


def by_tcp(monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Where the daemon listens with TLS, and the folder with what a client needs."""
    folder = Path(os.environ["DOCKERD_FOLDER"])
    monkeypatch.delenv("DOCKER_HOST")
    return f"tcp://127.0.0.1:{(folder / 'port').read_text().strip()}", folder / "certificates"


def test_a_daemon_by_tcp_with_tls(
    start_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, certificates = by_tcp(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    travels(start_kernel(), host)


async def test_a_stream_that_leads_nowhere_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    host, certificates = by_tcp(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    stream = await (await Daemon.connect())._open()
    ours = stream.writer.get_extra_info("socket")
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
    stream.writer.close()
    await stream.writer.wait_closed()


def test_a_daemon_that_wants_tls_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    host, _ = by_tcp(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(EngineUnavailable, match=f"the Docker daemon at {host} wants TLS") as caught:
        checks.check_daemon()
    assert "DOCKER_CERT_PATH" in str(caught.value.hint)


def test_a_daemon_of_another_authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host, certificates = by_tcp(monkeypatch)
    for name in ("cert.pem", "key.pem"):
        shutil.copy(certificates / name, tmp_path)
    shutil.copy(certificates / "cert.pem", tmp_path / "ca.pem")
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match="is of another authority"):
        checks.check_daemon()


def test_certificates_for_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    host, certificates = by_tcp(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", host.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    with pytest.raises(EngineUnavailable, match="is for another name"):
        checks.check_daemon()


def test_a_daemon_by_a_context(
    start_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host, certificates = by_tcp(monkeypatch)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    keys = [f"{name}={certificates}/{name}.pem" for name in ("ca", "cert", "key")]
    subprocess.run(
        ["docker", "context", "create", "far", "--docker", ",".join([f"host={host}", *keys])],
        check=True,
    )
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    travels(start_kernel(), host)
