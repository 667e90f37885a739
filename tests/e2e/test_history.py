"""History: the cells of this session and of those before it, as `jupyter console` asks for them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Kernel
from IPython.core.history import HistoryAccessor

pytestmark = pytest.mark.e2e
Start = Callable[..., Kernel]


@pytest.fixture(autouse=True)
def history_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "crkernel" / "history.sqlite"


def history(kernel: Kernel, **request: Any) -> list[Any]:
    """The entries of a history_reply."""
    kernel.client.history(**request)
    content = kernel.reply("history_reply")
    assert content["status"] == "ok"
    found: list[Any] = content["history"]
    return found


def codes(kernel: Kernel, **request: Any) -> list[str]:
    """Their code alone."""
    return [entry[2] for entry in history(kernel, **request)]


def test_tail_range_and_search_reach_across_sessions(start_kernel: Start) -> None:
    first = start_kernel()
    for code in ("let a = 1", "a + 1\n", "%timeline", "fail("):
        first.run(code)
    first.run("hidden = 1", silent=True)
    first.run("hidden = 2", store_history=False)
    assert codes(first, hist_access_type="tail", n=2) == ["%timeline", "fail("]
    first.control("shutdown_request", {"restart": False})

    second = start_kernel()
    assert codes(second, hist_access_type="tail", n=9) == [
        "let a = 1",
        "a + 1\n",
        "%timeline",
        "fail(",
    ]
    for code in ("let b = 1", "let a = 1", "b"):
        second.ok(code)
    tail = history(second, hist_access_type="tail", n=4)
    assert [entry[2] for entry in tail] == ["fail(", "let b = 1", "let a = 1", "b"]
    session = tail[-1][0]
    assert session > tail[0][0]
    assert [entry[1] for entry in tail] == [4, 1, 2, 3]
    here = {"hist_access_type": "range", "start": 1, "stop": 3}
    assert codes(second, session=0, **here) == ["let b = 1", "let a = 1"]
    assert codes(second, session=session, **here) == ["let b = 1", "let a = 1"]
    assert codes(second, session=-1, **here) == ["let a = 1", "a + 1\n"]
    search = {"hist_access_type": "search", "pattern": "let*"}
    assert codes(second, **search) == ["let a = 1", "let b = 1", "let a = 1"]
    assert codes(second, **search, unique=True) == ["let b = 1", "let a = 1"]
    assert codes(second, **search, n=1) == ["let a = 1"]
    assert codes(second, hist_access_type="search", pattern="no such *") == []


def test_results_of_this_session_are_told_and_not_kept(start_kernel: Start) -> None:
    first = start_kernel()
    tail = {"hist_access_type": "tail", "output": True}
    for code in ("6 * 7", "let a = 1", "'x'.repeat(20_000)", "fail("):
        first.run(code)
    *shown, (long, text), failed = codes(first, **tail)
    assert [*shown, failed] == [["6 * 7", "42"], ["let a = 1", None], ["fail(", None]]
    assert long == "'x'.repeat(20_000)"
    assert text == "'" + "x" * 9_999
    one = {"hist_access_type": "range", "session": 0, "start": 1, "stop": 2, "output": True}
    assert codes(first, **one) == [["6 * 7", "42"]]
    first.control("shutdown_request", {"restart": False})
    second = start_kernel()
    second.ok("7 * 7")
    assert codes(second, **tail)[-2:] == [["fail(", None], ["7 * 7", "49"]]
    assert codes(second, **tail)[0] == ["6 * 7", None]


def test_cells_of_a_rewound_present_stay_in_the_history(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("let x = 1")
    fresh_kernel.ok("x = 2")
    fresh_kernel.ok("%rewind 1")
    fresh_kernel.ok("x")
    assert codes(fresh_kernel, hist_access_type="tail", n=4) == [
        "let x = 1",
        "x = 2",
        "%rewind 1",
        "x",
    ]


def test_ipython_reads_the_file(fresh_kernel: Kernel, history_file: Path) -> None:
    fresh_kernel.ok("6 * 7")
    fresh_kernel.control("shutdown_request", {"restart": False})
    fresh_kernel.manager.provisioner.process.wait(timeout=20)  # type: ignore[union-attr]
    with HistoryAccessor(hist_file=str(history_file)) as accessor:
        ((session, line, code),) = accessor.get_tail(5, include_latest=True)
        assert (line, code) == (1, "6 * 7")
        assert accessor.get_session_info(session)[3] == 1
    assert history_file.parent.stat().st_mode & 0o077 == 0


def test_a_locked_file_holds_up_no_cell(fresh_kernel: Kernel, history_file: Path) -> None:
    fresh_kernel.ok("'before'")
    assert codes(fresh_kernel, hist_access_type="tail") == ["'before'"]
    other = sqlite3.connect(history_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    for number in range(5):
        fresh_kernel.ok(f"{number}")
    assert time.monotonic() - began < 2
    assert codes(fresh_kernel, hist_access_type="tail") == []
    other.execute("COMMIT")
    other.close()
    fresh_kernel.ok("'after'")
    assert codes(fresh_kernel, hist_access_type="tail") == ["'before'", *"01234", "'after'"]


def test_without_a_place_to_write_everything_else_works(
    start_kernel: Start, history_file: Path
) -> None:
    history_file.parent.parent.write_text("a file where the folder should be")
    kernel = start_kernel()
    assert kernel.ok("6 * 7").text == "42"
    assert kernel.ok("6 * 7").text == "42"
    assert codes(kernel, hist_access_type="tail") == []
    assert kernel.log.read_text().count("the history") == 1


def test_a_file_that_is_no_database_is_left_alone(start_kernel: Start, history_file: Path) -> None:
    history_file.parent.mkdir(parents=True)
    history_file.write_text("precious " * 1000)
    kernel = start_kernel()
    assert kernel.ok("6 * 7").text == "42"
    assert codes(kernel, hist_access_type="search", pattern="*") == []
    assert history_file.read_text() == "precious " * 1000
