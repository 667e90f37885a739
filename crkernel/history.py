"""The history of cells across sessions, for front ends that ask for it as `jupyter console` does.

An SQLite file in the form of IPython's, but one of our own: its cells are JavaScript. All work on
it is done by one thread that nobody waits for but who asks; so neither a full disk nor a file that
somebody else has locked holds up a cell.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_LOCKED_SECONDS = 2.0
"""How long to wait for another kernel that is just writing."""
_UNWRITTEN = 1000
"""Cells that are kept in mind while the file cannot be written."""
_TAIL = 10
_RESULTS = 1000
"""Results of this session that are kept, the newest ones."""
_LONGEST = 10_000
"""Characters of a result that are kept."""
_COLOURS = re.compile(r"\x1b\[[\d;]*m")

_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    session integer primary key autoincrement,
    start timestamp, end timestamp, num_cmds integer, remark text);
CREATE TABLE IF NOT EXISTS history (
    session integer, line integer, source text, source_raw text, PRIMARY KEY (session, line));
CREATE TABLE IF NOT EXISTS output_history (
    session integer, line integer, output text, PRIMARY KEY (session, line));
"""

Entry = tuple[int, int, Any]
"""Session, line, and the code; or, with output, the pair of code and the result as text, if there
is one and the cell is of this session: results are not in the file."""
T = TypeVar("T")


def history_file() -> Path:
    """Where the history lies: a state that outlives programs and is no data of the user's."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return home / "crkernel" / "history.sqlite"


class History:
    """One kernel's view of the history; its own cells are those of a new session."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._worker = ThreadPoolExecutor(1, "history")
        self._database: sqlite3.Connection | None = None
        self._session = 0
        self._unwritten: deque[tuple[int, str]] = deque(maxlen=_UNWRITTEN)
        self._results: dict[int, str] = {}  # by line, the oldest first
        self._writing = False  # whether the worker has been told to write
        self._failed = False

    def record(self, line: int, code: str, result: str | None = None) -> None:
        """Keep a cell, some time soon. What goes wrong is told in the log, once."""
        if result is not None:
            self._results[line] = _COLOURS.sub("", result[:_LONGEST])
            if len(self._results) > _RESULTS:
                del self._results[next(iter(self._results))]
        self._unwritten.append((line, code))
        if not self._writing:
            self._writing = True
            self._worker.submit(self._write)

    async def tail(self, n: int | None, *, output: bool) -> list[Entry]:
        """The last `n` cells, oldest first: those of this session, then of sessions before it."""
        return await self._ask(
            "ORDER BY session == :own DESC, session DESC, line DESC LIMIT :n",
            {"n": _TAIL if n is None else n},
            output=output,
        )

    async def range(
        self, session: int, start: int, stop: int | None, *, output: bool
    ) -> list[Entry]:
        """Lines of one session, `stop` excluded; 0 is this session, -1 the one before it."""
        return await self._ask(
            "WHERE session == :session + (:session <= 0) * :own"
            " AND line >= :start AND line < ifnull(:stop, 1 << 62)"
            " ORDER BY line DESC",
            {"session": session, "start": start, "stop": stop},
            output=output,
        )

    async def search(
        self, pattern: str, n: int | None, *, unique: bool, output: bool
    ) -> list[Entry]:
        """The last `n` cells that match a pattern with * and ?, each text once if `unique`."""
        return await self._ask(
            "WHERE source_raw GLOB :pattern"
            + (" GROUP BY source_raw HAVING max((session << 32) + line)" * unique)
            + " ORDER BY session DESC, line DESC LIMIT ifnull(:n, -1)",
            {"pattern": pattern, "n": n},
            output=output,
        )

    def close(self) -> None:
        """Write what is left, unless somebody else has locked the file."""
        self._worker.submit(self._end)
        self._worker.shutdown()

    async def _ask(self, query: str, values: dict[str, Any], *, output: bool) -> list[Entry]:
        """The rows of a query that orders the newest first, the oldest first."""

        def rows(database: sqlite3.Connection) -> list[Entry]:
            found = database.execute(
                f"SELECT session, line, source_raw FROM history {query}",
                values | {"own": self._session},
            ).fetchall()
            own = self._results if output else {}
            return [
                (s, n, (code, own.get(n) if s == self._session else None) if output else code)
                for s, n, code in reversed(found)
            ]

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._guarded, rows) or []

    # -- on the worker thread

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            if self._database is None:
                self._database = self._open()
            with self._database as database:
                return work(database)
        except (OSError, sqlite3.Error) as error:
            report = log.debug if self._failed else log.warning
            report("the history %s is of no use now: %s", self._file, error)
            self._failed = True
            return None

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, _LOCKED_SECONDS)
        try:
            database.executescript("PRAGMA synchronous = OFF;" + _TABLES)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            with database:
                cursor = database.execute("INSERT INTO sessions (start) VALUES (?)", (started,))
        except sqlite3.Error:
            database.close()
            raise
        self._session = int(cursor.lastrowid or 0)
        return database

    def _write(self) -> None:
        """What cannot be written now goes with the next cell."""
        self._writing = False
        cells = list(self._unwritten)

        def insert(database: sqlite3.Connection) -> bool:
            rows = [(self._session, line, code, code) for line, code in cells]
            database.executemany("INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?)", rows)
            return True

        if self._guarded(insert):
            for _ in cells:
                self._unwritten.popleft()

    def _end(self) -> None:
        if self._database is None:
            return
        ended = time.strftime("%Y-%m-%d %H:%M:%S")
        self._guarded(
            lambda database: database.execute(
                "UPDATE sessions SET end = ?, num_cmds = (SELECT count(*) FROM history"
                " WHERE history.session = sessions.session) WHERE session = ?",
                (ended, self._session),
            )
        )
        self._database.close()
