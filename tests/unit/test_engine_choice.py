"""Which engine `auto` stands for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from crkernel import image
from crkernel.engines import choice

PROBE = choice._PROBE


@pytest.fixture(autouse=True)
def _a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_docker_answers", lambda: True)
    monkeypatch.setattr(image, "image_path", lambda: Path("/image"))
    monkeypatch.setattr(choice, "_FORBIDDEN", {})
    monkeypatch.setattr(choice, "_PROBE", ["true"])


def test_local_where_it_can_be() -> None:
    assert choice.choose() == "local"


def test_docker_without_a_local_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "image_path", lambda: None)
    assert choice.choose() == "docker"


def test_docker_where_user_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_read", lambda _: "0\n")
    monkeypatch.setattr(choice, "_FORBIDDEN", {"user/max_user_namespaces": "0"})
    assert choice.choose() == "docker"


def test_docker_where_a_filter_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_read", lambda _: "Name:\tpython\nSeccomp:\t2\n")
    monkeypatch.setattr(choice, "_PROBE", ["false"])
    assert choice.choose() == "docker"


def test_docker_where_a_part_of_proc_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    def line(place: str) -> str:
        return f"30 25 0:20 / {place} rw - proc proc rw\n"

    covered = line("/proc") + line("/proc/sys/fs/binfmt_misc")
    monkeypatch.setattr(choice, "_read", lambda path: covered if path.name == "mountinfo" else "")
    monkeypatch.setattr(choice, "_PROBE", ["false"])
    assert choice.choose() == "local"
    covered += line("/proc/kcore")
    assert choice.choose() == "docker"


def test_the_probe_finds_that_a_part_of_proc_is_covered() -> None:
    """As an ordinary user would find it in a container."""
    here = ["unshare", "--user", "--map-root-user", "--mount"]
    for hide, fails in (("true", False), ("mount -t tmpfs none /proc/sys", True)):
        probe = subprocess.run([*here, "sh", "-c", f'{hide} && exec "$@"', "sh", *PROBE])
        assert bool(probe.returncode) == fails


def test_local_with_its_complaint_where_nothing_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "image_path", lambda: None)
    monkeypatch.setattr(choice, "_docker_answers", lambda: False)
    assert choice.choose() == "local"


def test_no_daemon_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert not choice._docker_answers()
