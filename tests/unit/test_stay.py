"""A child that stays for the next chore, as long as chores come."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from crkernel.guest import stay
from crkernel.guest.chores import Json

_LONG = 60.0


class Played:
    """A `Stay` whose children say who they are and what they were asked."""

    def __init__(self) -> None:
        self.children: list[int] = []
        self._said, self._says = os.pipe()
        self._stay = stay.Stay(self._fork, lambda: None, self._do)

    def _fork(self, work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work()
            finally:
                os._exit(1)
        self.children.append(pid)
        return pid

    def _do(self, request: Json) -> None:
        os.write(self._says, b"%d %d\n" % (os.getpid(), request["id"]))

    def give(self, number: int) -> int:
        """A request; the process that has it."""
        return self._stay.give({"id": number})

    def heard(self) -> str:
        """What was done."""
        return os.read(self._said, 1 << 10).decode()

    def close(self) -> None:
        """Have none of it left."""
        self._stay.close()
        for pid in list(self.children):
            self.end(pid)
        os.close(self._said)
        os.close(self._says)

    def end(self, pid: int, number: int = 0) -> int:
        """Wait for a child's end, by a signal perhaps; how it ended."""
        if number:
            os.kill(pid, number)
        self.children.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def played() -> Iterator[Played]:
    played = Played()
    yield played
    played.close()


def test_one_child_does_one_after_the_other(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stay, "_SECONDS", _LONG)
    for number in range(5):
        pid = played.give(number)
        assert played.heard() == f"{pid} {number}\n"
    assert played.children == [pid]


def test_it_goes_when_nothing_comes_and_nothing_is_lost(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stay, "_SECONDS", 0.0)  # each request comes just when it goes
    for number in range(200):
        pid = played.give(number)
        assert played.heard() == f"{pid} {number}\n"
    assert {played.end(pid) for pid in list(played.children)} == {0}


def test_another_takes_the_place_of_one_that_was_ended(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stay, "_SECONDS", _LONG)
    first = played.give(1)
    assert played.heard() == f"{first} 1\n"
    assert played.end(first, signal.SIGKILL) == -signal.SIGKILL
    second = played.give(2)
    assert second != first
    assert played.heard() == f"{second} 2\n"
