"""The C library's memory: kept for the next big message, and given back in a pause.

glibc gives large blocks back to Linux when they are freed. A display of 10 MB goes through five of
them, and to have Linux make and clear them anew takes as long as all that is done with them.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 128 << 20
_LARGEST = 32 << 20  # the most that glibc takes
_LIBC = ctypes.CDLL(None)
_IS_GLIBC = hasattr(_LIBC, "mallopt") and hasattr(_LIBC, "malloc_trim")


def keep_freed() -> None:
    """From now on up to 128 MiB that were freed wait to be taken again (mallopt(3))."""
    if _IS_GLIBC:
        _LIBC.mallopt(_MMAP_THRESHOLD, _LARGEST)
        _LIBC.mallopt(_TRIM_THRESHOLD, _KEPT)


def give_back() -> None:
    """Let Linux have what waits; some milliseconds (malloc_trim(3))."""
    if _IS_GLIBC:
        _LIBC.malloc_trim(ctypes.c_size_t(0))
