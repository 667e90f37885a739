"""A daemon that is reached by `DOCKER_HOST=ssh://...`: a real sshd, on a port and with keys of the
test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _driver import eventually, travels
from driver import Kernel

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
SECONDS = 20.0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`ssh://` and who is to be called; sshd ends with the test."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("there is no sshd: apt-get install openssh-server")
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nUsePAM no\n"
        f"PermitRootLogin prohibit-password\nSetEnv DOCKER_HOST={os.environ['DOCKER_HOST']}\n"
    )
    # ssh looks for its configuration in the account's home, whatever HOME is.
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -i {tmp_path}/user"
        f" -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={tmp_path}/known"
        ' -o LogLevel=ERROR "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with (tmp_path / "sshd.log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=log)
        try:
            assert eventually(lambda: listens(port), SECONDS), "sshd does not listen"
            yield f"ssh://root@127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def listens(port: int) -> bool:
    """Whether somebody does there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_daemon_by_ssh(
    host: str, start_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    travels(start_kernel(), host)
