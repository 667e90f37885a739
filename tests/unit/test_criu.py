"""A CRIU that does not do its work leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crkernel.guest import criu


def test_one_that_does_not_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu, "CRIU", "/usr/bin/yes")  # has something else to do, for ever
    monkeypatch.setattr(criu, "_PATIENCE_SECONDS", 0.5)
    images = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    ours = criu.Criu(images)
    ours.prepare()
    (waiting,) = ours.processes
    with pytest.raises(criu.CriuError, match="did not answer"):
        ours.dump(os.getpid(), images, [], [], lambda: None, lambda: None)
    assert ours.processes == []
    with pytest.raises(ProcessLookupError):
        os.kill(waiting, 0)
    os.close(images)
