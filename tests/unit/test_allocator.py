"""Memory that was freed is kept for the next big message, and given back when there is a pause."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import psutil
from crkernel import allocator
held = lambda: psutil.Process().memory_info().rss
allocator.keep_freed()
before = held()
for _ in range(3):
    bytes(10_000_000).decode("latin-1")
kept = held() - before
allocator.give_back()
print(kept, held() - before)
"""


def test_what_was_freed_is_kept_and_given_back() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    kept, left = map(int, said.split())
    assert kept > 15e6
    assert left < 2e6
