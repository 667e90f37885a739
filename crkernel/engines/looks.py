"""Answers that a guest would give again, as long as it rests: to ask whether it does takes a third
of the time of having it look once more."""

from __future__ import annotations

from crkernel.guest.wire import Message


class Looks:
    """The newest answer of one guest to each kind of question. A guest that went on between two
    answers does not rest; what it was told to do meanwhile is `moved` here."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[Message, Message]] = {}
        self._moves = 0

    def moved(self) -> None:
        """The guest is, or was until now, told to do something."""
        self._moves += 1
        self._answers.clear()

    @property
    def moves(self) -> int:
        """How often it was."""
        return self._moves

    def find(self, op: str, fields: Message) -> Message | None:
        """What it answered, if it has been asked just this; true while it rests."""
        asked, answer = self._answers.get(op, ({}, None))
        return answer if asked == fields else None

    def add(self, op: str, fields: Message, answer: Message, moves: int) -> None:
        """What it answers, who was asked after so many `moves`."""
        if moves == self._moves:
            self._answers[op] = (fields, answer)
