"""Which engine `auto` stands for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crkernel import image
from crkernel.engines import choice, trial

_AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="takes root to forbid it")
_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--mount")
_CHROOT = 'root=$(mktemp -d) && mount --rbind / "$root" && exec chroot "$root" "$@"'


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_docker_answers", lambda: True)
    monkeypatch.setattr(image, "image_path", lambda: Path("/image"))


@pytest.mark.usefixtures("daemon")
def test_local_where_it_can_be() -> None:
    assert choice.choose() == "local"


@pytest.mark.usefixtures("daemon")
def test_docker_without_a_local_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "image_path", lambda: None)
    assert choice.choose() == "docker"


@pytest.mark.usefixtures("daemon")
def test_docker_where_linux_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LINUX_NEEDED", (99, 1))
    assert choice.choose() == "docker"


def test_local_with_its_complaint_where_nothing_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "image_path", lambda: None)
    monkeypatch.setattr(choice, "_docker_answers", lambda: False)
    assert choice.choose() == "local"


@pytest.mark.parametrize(
    ("place", "engine"),
    [
        pytest.param((), "local", id="as it is"),
        pytest.param(("env", "PATH=/nowhere"), "local", id="without programs"),
        pytest.param(
            ("unshare", "--mount", "sh", "-c", _CHROOT, "sh"),
            "docker",
            id="chroot",
            marks=_AS_ROOT,
        ),
        pytest.param(
            ("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"),
            "docker",
            id="a root that cannot become another user",
            marks=_AS_ROOT,
        ),
        *(
            pytest.param((*_USER, "sh", "-c", f'{hide} && exec "$@"', "sh"), "docker", id=hide)
            for hide in (
                "echo 0 > /proc/sys/user/max_user_namespaces",
                "echo 0 > /proc/sys/user/max_time_namespaces",
                "mount -t tmpfs none /proc/fs",
            )
        ),
    ],
)
def test_auto_is_local_where_the_doctor_finds_that_it_can_be(
    place: tuple[str, ...], engine: str, tmp_path: Path
) -> None:
    code = """if True:
        from pathlib import Path
        from crkernel import doctor, image
        from crkernel.engines import choice
        image.image_path = lambda: Path("/image")
        try:
            found = doctor.check_namespaces() and "local"
        except doctor.EngineUnavailable:
            found = "docker"
        print(found, choice.choose())
    """
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(f"{tmp_path}/sock")
        daemon.listen()
        (tmp_path / "sock").chmod(0o777)
        ended = subprocess.run(
            [*place, sys.executable, "-c", code],
            env=os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/sock"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.stderr == ""
    assert ended.stdout.split() == [engine, engine]


def test_the_trial_that_was_begun_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_failed_step", lambda: "user namespace: no")
    trial.begin(["-f", "connection.json", "--CRKernel.engine=auto"])
    monkeypatch.undo()
    assert trial.failure() == "user namespace: no"
    assert trial.failure() == ""


@pytest.mark.parametrize("engine", ["local", "docker"])
def test_no_trial_is_begun_for_an_engine_that_is_named(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "Trial", lambda: pytest.fail("for nothing"))
    trial.begin([f"--CRKernel.engine={engine}"])


def test_a_trial_that_is_ended_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_failed_step", lambda: os.kill(os.getpid(), 31))
    assert trial.failure() == "a trial of sandboxes ended with -31"


@pytest.mark.parametrize(
    "host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "127.0.0.1:1", "tcp://x:y"]
)
def test_no_daemon_is_no_error(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.setenv("DOCKER_HOST", host)
    assert not choice._docker_answers()


def test_a_daemon_on_tcp_is_knocked_at_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.setattr(choice, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as daemon:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{daemon.getsockname()[1]}")
        assert choice._docker_answers()
        assert not choice._docker_answers()  # the first fills the queue, and others wait
