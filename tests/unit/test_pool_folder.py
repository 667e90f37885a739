"""The folder of the local pool: whose it may be, and what is said where there can be none."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from crkernel import cli
from crkernel.engines import Limits, outside, pool
from crkernel.engines.local_pool import LocalPool
from crkernel.errors import EngineUnavailable


def test_the_sessions_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `su` leaves it in the environment."""
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert outside.pool_folder() == tmp_path / "runtime" / "crkernel"
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert outside.pool_folder() == tmp_path / f"crkernel-{other}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    assert outside.pool_folder() == tmp_path / f"crkernel-{other}"


def test_what_is_no_folder_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "crkernel").touch()
    error = CliRunner().invoke(cli.cli, ["pool", "--engine", "local"]).exception
    assert isinstance(error, EngineUnavailable)
    assert error.message == (
        f"{tmp_path}/crkernel is no folder where nests can be kept: Not a directory"
    )
    assert str(tmp_path) in str(error.hint)


@pytest.mark.parametrize("size", [0, 1])
async def test_only_who_wants_a_pool_is_told_that_there_can_be_none(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(pool, "_DELAY", 0.01)
    (tmp_path / "crkernel").touch()
    nests = LocalPool(tmp_path, Limits.default(), "none", size, lambda: None)
    filling = asyncio.ensure_future(nests.keep_full())
    await asyncio.wait([filling], timeout=0.5)
    assert filling.done() == (size == 0)
    assert len(caplog.messages) == size
    nests.end()
    await filling
