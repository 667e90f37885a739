"""Memory of files means what anonymous memory does, at whatever instant it comes to be of files."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crkernel import image
from crkernel.image_steps import SHIM_FLAGS

SCENARIOS = """
    anonymous anonymous-own mapped mapped-own mapped-locked mapped-hole mapped-refused mapped-ended
    anonymous-free anonymous-own-free mapped-free mapped-own-free
    anonymous-grow mapped-grow anonymous-grow-move mapped-grow-move mapped-grow-ended
    mapped-grow-refused mapped-grow-readonly-refused
    anonymous-dontunmap mapped-dontunmap
"""
"""What is given back (or freed, grown, left behind): memory that is anonymous or of a memory file,
with files of the program's own or a hole in it, with no mapping to be had, or read-only; in a
process whose main thread has ended."""


@pytest.fixture(scope="module")
def shim() -> Iterator[tuple[Path, Path]]:
    """The shim, and the folder whose files are memory files to it."""
    with tempfile.TemporaryDirectory(prefix="crkernel-tests-", dir="/dev/shm") as home:
        # A path so long that a few lines of maps are more than is read of it at a time.
        memory, built = Path(home) / ("m" * 200), Path(home) / "shim.so"
        memory.mkdir()
        source = (image.SHIMS / "anonymous.c").read_text().replace('"/memory/"', f'"{memory}/"')
        command = ["cc", *SHIM_FLAGS, "-x", "c", "-", "-o", built]
        subprocess.run(command, input=source, text=True, check=True)
        yield built, memory


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What plays the scenarios."""
    path = tmp_path_factory.mktemp("shim") / "program"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-O1", "-pthread", "-w", "-o", path, source], check=True)
    return path


@pytest.mark.parametrize("scenario", SCENARIOS.split())
def test_a_checkpoint_between_any_two_calls(
    shim: tuple[Path, Path], program: Path, scenario: str
) -> None:
    built, memory = shim
    played = subprocess.run(
        [program, memory, scenario],
        env={"LD_PRELOAD": str(built)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "right at each of" in played.stdout
