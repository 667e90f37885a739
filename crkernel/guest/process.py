"""The guest as its supervisor holds it: a process tree's root and five pipes."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import activity, wire
from . import syscalls as sc

WORK = "/home/work"
FIRST_PID = 5000
"""The guest's process ids start here, so that they are free wherever it is restored."""
_OOM_SCORE = 500
"""A machine out of memory ends guests, which can be restored, before it ends anything else."""

_READ_PIPES = {"stdout": 1, "stderr": 2, "replies": 4, "events": 5}
"""What the guest writes, by its descriptor numbers; 3 is where it reads its calls."""
CALLS_FD = 3
_EVENTS_FD = 5
_STARTS = 8
"""Processes and threads that a guest must be able to start before it can say hello."""
_EVENTS_BYTES = 1 << 20
"""What a guest can show before the supervisor has to read."""


class GuestEnded(Exception):
    """The guest closed its end of a pipe, as it does when it ends."""


@dataclass
class Pipes:
    """The supervisor's ends (`ours`) and, until they are handed over, the guest's (`theirs`)."""

    ours: dict[int, int] = field(default_factory=dict)
    theirs: dict[int, int] = field(default_factory=dict)

    @classmethod
    def make(cls) -> Pipes:
        """Five fresh pipes; the guest's ends block, the supervisor's do not."""
        pipes = cls()
        for number in (1, 2, 3, 4, 5):
            reader, writer = os.pipe()
            ours, theirs = (writer, reader) if number == CALLS_FD else (reader, writer)
            os.set_blocking(ours, False)
            pipes.ours[number], pipes.theirs[number] = ours, theirs
        with contextlib.suppress(PermissionError):  # beyond what the machine gives one user
            fcntl.fcntl(pipes.ours[_EVENTS_FD], fcntl.F_SETPIPE_SZ, _EVENTS_BYTES)
        return pipes

    def inodes(self) -> dict[int, int]:
        """How CRIU names them, by the guest's descriptor number."""
        return {number: os.fstat(fd).st_ino for number, fd in self.ours.items()}

    def hand_over(self) -> None:
        """Close the guest's ends here, once it holds them."""
        for descriptor in self.theirs.values():
            os.close(descriptor)
        self.theirs.clear()

    def close(self) -> None:
        """Close whatever is still open."""
        for descriptor in (*self.ours.values(), *self.theirs.values()):
            os.close(descriptor)
        self.ours.clear()
        self.theirs.clear()


class Guest:
    """A live guest. `forward` takes what it says, as frames for the kernel."""

    def __init__(
        self,
        pid: int,
        pipes: Pipes,
        forward: Callable[[wire.Body], None],
        leftovers: Mapping[str, str] | None = None,
    ) -> None:
        self.pid = pid
        self.pipes = pipes
        self.pidfd = os.pidfd_open(pid)
        self._forward = forward
        self._unsent = bytearray()
        self._replies: list[wire.Body] = []
        self._unanswered = 0
        old = {name: bytes.fromhex(text) for name, text in (leftovers or {}).items()}
        self._frames = {n: wire.Decoder(old.get(n, b"")) for n in ("replies", "events")}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._texts = {name: decoder("replace") for name in ("stdout", "stderr")}
        for name, text_decoder in self._texts.items():
            text_decoder.setstate((old.get(name, b""), 0))

    def leftovers(self) -> dict[str, str]:
        """What of unfinished frames and characters has been read, for a checkpoint."""
        frames = {name: decoder.leftover.hex() for name, decoder in self._frames.items()}
        return frames | {name: d.getstate()[0].hex() for name, d in self._texts.items()}

    @property
    def wants_to_write(self) -> bool:
        """Whether a call waits for room in the pipe."""
        return bool(self._unsent)

    @property
    def answered(self) -> bool:
        """Whether no call is under way."""
        return self._unanswered == 0

    def call(self, message: Mapping[str, Any]) -> None:
        """Send a call; the reply comes on its own."""
        self._unsent += wire.pack(message)
        self._unanswered += 1
        self.flush()

    def flush(self) -> None:
        """Write as much as fits. Raises GuestEnded."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.pipes.ours[CALLS_FD], self._unsent)]
        except BlockingIOError:
            return
        except BrokenPipeError as error:
            raise GuestEnded from error

    def drain(self) -> None:
        """Take all that the guest has written: pass output on first, then collect replies, so that
        nothing a cell printed comes after its reply. Raises wire.WireError."""
        replies = self._read("replies")
        self._drain_events()
        for name in ("stdout", "stderr"):
            self._drain_text(name)
        new = self._frames["replies"].feed(replies)
        self._unanswered = max(0, self._unanswered - len(new))  # a hello at boot answers no call
        self._replies += new

    def take_replies(self) -> list[wire.Body]:
        """Replies that were drained and not taken yet."""
        replies, self._replies = self._replies, []
        return replies

    def first_reply(self, seconds: float) -> wire.Message:
        """Wait for the guest's hello: the reply with id 0, or the one without. Replies to calls of
        before a checkpoint go nowhere. Raises GuestEnded, TimeoutError, wire.WireError."""
        for _ in self._rounds(seconds):
            for reply in map(wire.parse, self.take_replies()):
                if reply.get("id", 0) == 0:
                    hello = reply.get("hello", {})
                    return hello if isinstance(hello, dict) else {}
        raise TimeoutError(f"no answer within {seconds:.0f} s")

    def finish_calls(self, seconds: float) -> None:
        """Wait until no call is under way: a checkpoint would keep half of it, and the pipe the
        other half. Raises GuestEnded, TimeoutError, wire.WireError."""
        if self._unanswered == 0:
            return
        for _ in self._rounds(seconds):
            self.flush()
            if self._unanswered == 0:
                return
        raise TimeoutError(f"a call was not answered within {seconds:.0f} s")

    def _rounds(self, seconds: float) -> Iterator[None]:
        """Drain each time that the guest has written something, for so long."""
        poll = select.poll()
        for number in _READ_PIPES.values():
            poll.register(self.pipes.ours[number], select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        if self._unsent:
            poll.register(self.pipes.ours[CALLS_FD], select.POLLOUT)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
            self.drain()
            yield
            if self.pidfd in ready:
                raise GuestEnded("it ended at once")

    def _drain_events(self) -> None:
        bodies: list[wire.Body] = []
        for body in self._frames["events"].feed(self._read("events")):
            if body == wire.FENCE:
                self._pass_on(bodies, wire.EVENT)
                bodies = []
                for name in ("stdout", "stderr"):
                    self._drain_text(name)
            else:
                bodies.append(body)
        self._pass_on(bodies, wire.EVENT)

    def _drain_text(self, name: str) -> None:
        text = self._texts[name].decode(self._read(name))
        if text:
            self._pass_on([wire.encode({"event": "output", "name": name, "text": text})], b"")

    def _pass_on(self, bodies: list[wire.Body], prefix: bytes) -> None:
        for data in wire.join(bodies, prefix):
            self._forward(data)

    def _read(self, name: str) -> bytes:
        descriptor = self.pipes.ours[_READ_PIPES[name]]
        # No more than it holds at a time: a flood that is refilled meanwhile has no end.
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor, fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ))
        return b""

    def close(self) -> None:
        """Give up the descriptors; the process itself has ended or is somebody else's to end."""
        os.close(self.pidfd)
        self.pipes.close()


def has_room(most: int) -> bool:
    """Whether a guest could come up under this limit, which all processes of its user count for.
    What it does where it could not is anything from an abort to waiting for ever."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    children: list[int] = []
    resource.setrlimit(resource.RLIMIT_NPROC, (most, before[1]))
    try:
        while len(children) < _STARTS:
            if (pid := os.fork()) == 0:
                signal.pause()
                os._exit(0)
            children.append(pid)
    except BlockingIOError:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return True


def launch(
    command: Sequence[str], environment: Mapping[str, str], limits: Mapping[str, int]
) -> tuple[int, Pipes]:
    """Start a guest, without any privilege, under `limits` (names of setrlimit(2), lower case)."""
    pipes = Pipes.make()
    set_next_pid(FIRST_PID)
    pid = os.fork()
    if pid == 0:
        try:
            _become(command, environment, limits, pipes)
        except OSError as error:
            os.write(2, f"cannot start the guest: {error}\n".encode())
        finally:
            os._exit(127)
    pipes.hand_over()
    return pid, pipes


def _become(
    command: Sequence[str], environment: Mapping[str, str], limits: Mapping[str, int], pipes: Pipes
) -> None:
    os.setsid()
    sources = [os.open("/dev/null", os.O_RDWR), *pipes.theirs.values()]
    for number, source in enumerate(sources):  # first out of the way of the targets
        os.dup2(source, 100 + number)
    for number in range(len(sources)):
        os.dup2(100 + number, number)
    os.closerange(len(sources), 1 << 16)
    os.chdir(WORK)
    os.umask(0o022)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
    sc.adopt_orphans()  # so that a daemon stays in the tree that a checkpoint holds
    sc.drop_capabilities()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(_OOM_SCORE))
    os.execve(command[0], list(command), dict(environment))


def set_next_pid(pid: int) -> None:
    """The next process of this PID namespace gets this id (unless it is asked for another)."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))


def kill_all() -> None:
    """End every process of this sandbox but the supervisor."""
    for pid in activity.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def reap_all() -> None:
    """Wait for them, so that their ids are free."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def last_pid() -> int:
    """The newest process id of this PID namespace."""
    with open("/proc/sys/kernel/ns_last_pid") as file:
        return int(file.read())
