"""Why something was refused, in words for who wrote a notebook; for CRIU, what its log says."""

from __future__ import annotations

import os
import re

STAGING_FULL = (
    "staging is full (limit staging_size; drop checkpoints with %forget, or shut the kernel down "
    "and start it with a higher limit)"
)

PROCESSES_TAKEN = (
    "a fresh guest finds too few processes: those of the present one count until it has been left "
    "(limit max_processes; end some of them, rewind to where they were not, or set a higher limit "
    "with %config max_processes=…; then %reset)"
)

SYSTEM_V = (
    "System V shared memory, semaphores or message queues are there, which a checkpoint cannot "
    "hold; end what uses them, and remove what is left: ipcrm --all"
)

_REASONS: tuple[tuple[str, str], ...] = (
    (r"No space left on device", STAGING_FULL),
    (r"SysVIPC", SYSTEM_V),
    (r"pidfd pid", "a descriptor stands for a process outside of the guest; close it"),
    (
        r"Can't dump half of stream unix connection|External socket",
        "a Unix socket is connected to something outside of the guest",
    ),
    (
        r"Can't dump ghost file .* of (\d+) size",
        "a deleted file that is still open is too big (64 MiB are allowed); close it",
    ),
    (
        r"Can't (bind|connect) inet socket back",
        "it holds a connection out of the sandbox, which has no network now; "
        "set %config network = full",
    ),
    (
        r"Can't open mapped",
        "a program or library that is in use was deleted or replaced; end what uses it",
    ),
    (r"has bad size", "a file that is open changed its size meanwhile"),
    (
        r"\bpty|\btty|TTY",
        "a pseudo-terminal is open in a way that CRIU cannot take; end the program that uses it",
    ),
    (r"[Ss]eccomp", "a process put itself under a seccomp filter of its own; end it"),
    (r"io_uring|anon_inode:\[io_uring\]", "a process uses io_uring, which CRIU cannot take"),
    (
        r"packet socket|Unsupported.* socket|unsupported family",
        "a socket is of a kind that CRIU cannot take; close it",
    ),
    (
        r"anon_inode|Unknown (shit|fd)|Unsupported file type|Can't dump file .* of that type",
        "a descriptor is of a kind that CRIU cannot take; close it",
    ),
    (r"Can't lookup mount|mnt_id", "a descriptor lies on a file system that is not the sandbox's"),
    (r"nested|namespace", "a process made namespaces of its own; end it"),
    (r"ptrace|PTRACE|[Ss]eiz|is traced", "a process is being traced by a debugger; detach it"),
    (r"in-flight|in flight", "a message is still in flight between sockets; run the next cell"),
    (r"ENOMEM|Cannot allocate memory", "there is not enough memory"),
)
"""What CRIU says, and what it means."""

_HARMLESS = r"RLIMIT_NOFILE|ia32 mmap"
"""What CRIU calls errors, each time, and goes on."""


def why_refused(work: int, log: str) -> str:
    """The first error of a log in the directory `work`, in words where it is a known one, else as
    CRIU says it; empty if there is none."""
    try:
        with open(
            os.open(log, os.O_RDONLY, dir_fd=work), encoding="utf-8", errors="replace"
        ) as file:
            lines = [line.strip() for line in file if "Error (" in line]
    except FileNotFoundError:
        lines = []
    lines = [line for line in lines if not re.search(_HARMLESS, line)]
    if not lines:
        # Without room for images there is none for a log either.
        return "" if os.fstatvfs(work).f_bavail else STAGING_FULL
    lines = [re.sub(r"^\([\d.]+\)\s*(\d+:)?\s*Error \([^)]*\):\s*", "", line) for line in lines]
    for line in lines:
        for pattern, words in _REASONS:
            if re.search(pattern, line):
                return f"{words} (CRIU: {line})"
    return f"CRIU: {lines[0]}"
