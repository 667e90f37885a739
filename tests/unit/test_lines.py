"""What a command says while it works."""

from __future__ import annotations

import io

import pytest

from crkernel import lines


class Terminal(io.StringIO):
    """Takes what is said for eyes."""

    def isatty(self) -> bool:
        """Always."""
        return True


def say(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *said: str) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    all_of_it = lines.Lines()
    for line in said:
        all_of_it.say(line)
    return stream.getvalue()


def test_a_terminal_has_one_line_for_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "10")
    said = say(Terminal(), monkeypatch, "begin", "1 of 2\r", "a line too long\r", "end", "more")
    assert said == "begin\n1 of 2 …\r\x1b[Ka line t…\r\x1b[Kend\nmore\n"


def test_elsewhere_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("begin", "1 of 3\r", "2 of 3\r", "end")
    assert say(io.StringIO(), monkeypatch, *words) == "begin\nend\n"
    monkeypatch.setattr(lines, "_SPARSE", 0)
    assert say(io.StringIO(), monkeypatch, *words) == "begin\n2 of 3 …\nend\n"
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in say(Terminal(), monkeypatch, *words)


def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    lines.Lines().say("anybody there?")
