"""Tells whether a guest still is where its newest checkpoint has it: if it rests there."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from .activity import Activity, Reading, is_rest

_SETTLE_SECONDS = 0.005
"""After an answer the guest's main thread finishes what it did for it. Until then only what the
guest says tells whether it has gone on by itself."""
_LATE_SECONDS = 0.1
"""So long at most, where processors are short and its threads have to wait for one."""
_TICK_SECONDS = 0.0005


class Rest:
    """Of the guest in a sandbox, by what it says and by what its threads do. `not_the_guest` are
    the processes there that are somebody else's."""

    def __init__(self, not_the_guest: Callable[[], Collection[int]]) -> None:
        self._not_the_guest = not_the_guest
        self._guest = (0, 0)
        self._known: Activity | None = None
        self._began: Reading | None = None
        self._begins_at: float | None = None
        self._latest = 0.0
        self._spoke = False
        self._looking = False  # a call is under way that changes nothing, in a guest at rest

    def of(self, pid: int, worker: int) -> None:
        """The guest `pid` has come up, whose thread `worker` speaks with the supervisor."""
        self._guest, self._known = (pid, worker), None
        self.begin_soon()

    @property
    def _activity(self) -> Activity:
        """Made when it is needed: a restore would wait for it, and its loop is looked for."""
        if self._known is None:
            self._known = Activity(*self._guest)
        return self._known

    def begin(self) -> None:
        """The guest is still frozen for a checkpoint."""
        self._spoke = False
        self._read()

    def begin_soon(self) -> None:
        """The guest does nothing any more that it was told to do, but has not settled yet."""
        self._spoke = False
        self._settling()

    def end(self) -> None:
        """The guest goes on, because it is told to."""
        self._began = self._begins_at = None

    def come_to_wait(self) -> bool:
        """Give the main thread the time to come to its end: after an answer it tidies up, after a
        dump it goes back to where it waited, and where processors are short either takes long."""
        latest = time.monotonic() + _LATE_SECONDS
        while not self._activity.waits():
            if time.monotonic() > latest:
                return False
            time.sleep(_TICK_SECONDS)
        return True

    def disturb(self) -> None:
        """The guest said something."""
        self._spoke = True

    def holds(self) -> bool:
        """Whether nothing has happened since it began."""
        if self._begins_at is not None:
            return not self._spoke
        if self._spoke or self._began is None or not self.come_to_wait():
            return False
        return is_rest(self._began, self._activity.read(self._not_the_guest()))

    # -- calls

    def called(self, *, look: bool) -> None:
        """The guest gets a call; with `look` it changes nothing."""
        self._looking = look and self.holds()
        if not self._looking:
            self.end()

    def answered(self) -> None:
        """The guest has answered all calls."""
        if self._looking:
            self._looking = False
            self._settling()

    # -- the supervisor's loop

    @property
    def timeout(self) -> float | None:
        """Seconds until `settle` has something to do."""
        return None if self._begins_at is None else max(0.0, self._begins_at - time.monotonic())

    def settle(self) -> None:
        """Begin, if it is time and the guest has settled."""
        now = time.monotonic()
        if self._begins_at is None or now < self._begins_at:
            return
        if now < self._latest and self._activity.is_under_way(self._not_the_guest()):
            self._begins_at = now + _SETTLE_SECONDS
        else:
            self._read()

    def _settling(self) -> None:
        now = time.monotonic()
        self._begins_at, self._latest = now + _SETTLE_SECONDS, now + _LATE_SECONDS

    def _read(self) -> None:
        """What the guest does from here on, it does by itself."""
        self._begins_at = None
        self._began = self._activity.read(self._not_the_guest())
