"""The doctor where something really is missing; and what a kernel says there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from crkernel import image

pytestmark = [pytest.mark.e2e, pytest.mark.local_only("of the engine local")]

_CRKERNEL = str(Path(sys.executable).with_name("crkernel"))
_AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="takes root to forbid it")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


def failures(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the doctor finds wrong, by the name of the check. The proof is not tried then."""
    assert ended.stderr == ""
    assert ended.returncode == 1
    lines = [line.removeprefix("FAIL ") for line in ended.stdout.splitlines() if line[:2] != "ok"]
    found = dict(line.split(": ", 1) for line in lines)
    assert found.pop("dump and restore").startswith("not tried, since a check above failed")
    return found


def without_namespaces(command: str) -> list[str]:
    """Words that run a command where no user namespace may be made: as an ordinary user of one that
    allows none."""
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces"
    one = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps"]
    return [*one, "sh", "-c", f"{forbid}; exec {command}"]


def test_without_user_namespaces() -> None:
    (found,) = failures(run(*without_namespaces(f"{_CRKERNEL} doctor"))).items()
    assert found == (
        "namespaces",
        "user namespace: no more of them are allowed \N{EM DASH} fix: "
        "sudo sysctl -w user.max_user_namespaces=15000",
    )


def test_a_notebook_without_user_namespaces(tmp_path: Path) -> None:
    new = nbformat.v4
    nbformat.write(new.new_notebook(cells=[new.new_code_cell("1")]), tmp_path / "a.ipynb")
    ended = run(*without_namespaces(f"{_CRKERNEL} run {tmp_path}/a.ipynb"))
    assert ended.returncode == 1
    failed, hint = ended.stderr.splitlines()[1:3]
    assert failed.startswith("cell 1 failed: EngineUnavailable: no sandbox can be made here: ")
    assert hint == "  hint: run: crkernel doctor"


def test_without_an_image(tmp_path: Path) -> None:
    found = failures(run(_CRKERNEL, "doctor", CRKERNEL_DATA=str(tmp_path)))
    assert list(found) == ["image"]
    assert found["image"].endswith("\N{EM DASH} fix: crkernel image build")


@_AS_ROOT
def test_a_criu_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "criu"
    old.write_text("#!/bin/sh\necho Version: 4.1.1\n")
    old.chmod(0o755)
    place = image.require_image() / "usr/sbin/criu"
    seen = f"mount --bind {old} {place} && exec {_CRKERNEL} doctor"
    found = failures(run("unshare", "--mount", "sh", "-c", seen))
    assert found == {
        "CRIU": "CRIU 4.1.1 is older than 4.2 \N{EM DASH} fix: crkernel image build --force"
    }


def register(folder: Path, *argv: str) -> Path:
    """Let Jupyter find a kernel of ours with that command where JUPYTER_PATH is the folder."""
    spec = folder / "kernels/crkernel"
    spec.mkdir(parents=True)
    shown = {"argv": argv, "display_name": "x", "language": "javascript"}
    (spec / "kernel.json").write_text(json.dumps(shown))
    return spec


def test_a_registration_whose_python_is_gone(tmp_path: Path) -> None:
    """It keeps nobody from the proof."""
    spec = register(tmp_path, f"{tmp_path}/python", "-m", "crkernel", "-f", "{connection_file}")
    ended = run(_CRKERNEL, "doctor", JUPYTER_PATH=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-2] == (
        f"FAIL kernelspec: {spec} names a Python that is gone: {tmp_path}/python "
        "\N{EM DASH} fix: crkernel install"
    )
    assert ended.stdout.splitlines()[-1].startswith("ok   dump and restore: boot ")


def test_the_proof_is_made_with_the_settings_of_the_registration(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "crkernel", "-f", "{connection_file}")
    register(tmp_path, *command, "--CRKernel.staging_size=1M")
    ended = run(_CRKERNEL, "doctor", JUPYTER_PATH=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == (
        "FAIL dump and restore: staging_size cannot be '1M': it takes a size in bytes or like 512M "
        "or 2G, at least 64M \N{EM DASH} fix: correct it in the kernelspec's argv, "
        "then restart the kernel"
    )


@_AS_ROOT
def test_a_root_that_cannot_become_another_user() -> None:
    """As its nests do first of all: what root itself may do says nothing."""
    dropped = ("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid")
    assert failures(run(*dropped, _CRKERNEL, "doctor")) == {
        "namespaces": "another user than root: Operation not permitted \N{EM DASH} fix: "
        "run Jupyter as an ordinary user, or as a root that may change its user id"
    }


def test_a_kernel_on_a_processor_without_an_image(tmp_path: Path) -> None:
    """It lives, and says so."""
    new = nbformat.v4
    nbformat.write(new.new_notebook(cells=[new.new_code_cell("1")]), tmp_path / "a.ipynb")
    ended = run("setarch", "linux32", _CRKERNEL, "run", f"{tmp_path}/a.ipynb")
    assert ended.returncode == 1
    assert "cell 1 failed: EngineUnavailable: crkernel runs on x86_64 and aarch64" in ended.stderr
    assert "hint: use another machine" in ended.stderr


@_AS_ROOT
def test_a_root_that_may_not_mount_needs_nothing(tmp_path: Path) -> None:
    """As in most containers: npm's cache cannot be taken along, which is no reason to fail."""
    dropped = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    (tmp_path / "crkernel/npm").mkdir(parents=True)
    ended = run(*dropped, _CRKERNEL, "doctor", XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stdout


def test_the_proof_on_a_machine_with_little_memory() -> None:
    """Where a guest may have less than Node reserves without using it."""
    code = "from crkernel import doctor; from crkernel.engines import machine;"
    code += " machine.memory = lambda: 2 << 30; print(doctor.proof())"
    ended = run(sys.executable, "-c", code)
    assert ended.stdout.startswith("boot "), ended.stderr
