"""CRIU, driven over its RPC: one `criu swrk` process for each dump and each restore.

The RPC (https://criu.org/RPC) tells the supervisor when the guest stands frozen, which a command
line could only do by starting a script, and takes directories as descriptors, so that images can
lie where no path of the sandbox leads.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from . import activity, protobuf
from .protobuf import Field
from .refusals import why_refused

CRIU = "/usr/sbin/criu"
_SHIMS = "/usr/lib/crkernel-shims"
SHIMS = f"{_SHIMS}/noseccomp.so {_SHIMS}/libgnutls.so.30"
"""Preloaded into CRIU: it sees no seccomp filters (docs/security.md), and starts faster."""
DUMP_SHIMS = f"{SHIMS} {_SHIMS}/connections.so"
"""For a dump too: TCP connections go on as if nothing had been."""
_RESTORE_SHIMS = f"{SHIMS} {_SHIMS}/threshold.so"
"""And what it restores waits with its memory, until the threshold is open."""

_DUMP, _RESTORE, _CHECK, _NOTIFY = 1, 2, 3, 6  # enum criu_req_type
_FROZEN = "query-ext-files"
"""CRIU's first notification after it has frozen a tree. It goes on before its hook is run: the next
one, 8 ms later, tells it if that failed."""
_THRESHOLD = "CRKERNEL_THRESHOLD"
_LOG_LEVEL = 2  # errors and warnings: what a refusal is explained from
_IGNORE_CGROUPS, _SKIP_NETWORK_LOCK = 0, 3
_GHOST_LIMIT = 64 << 20  # bytes of an unlinked file that is still open
_NO_REASON = "CRIU gave no reason"
_RPC_FD, _FIRST_PIPE_FD = 3, 10
_MAX_ANSWER = 1 << 16
_TICK_SECONDS = 0.5
_STOPS = 3
"""How often CRIU is continued that a guest has stopped."""
_PATIENCE_SECONDS = 120
"""Between two of CRIU's answers: enough to write 100 GB."""


class CriuError(Exception):
    """CRIU refused; the message is the reason in words."""


@dataclass(frozen=True)
class DumpTimes:
    """Microseconds, as CRIU counts them."""

    frozen: int
    memory: int


class Criu:
    """Runs CRIU for one supervisor. `runtime` is a directory descriptor where CRIU keeps what it
    found out about the kernel: 30 ms less for each call.

    The process for the next dump can be started ahead of it (`prepare`): loading CRIU and its
    libraries takes 1.5 ms. One that has done its work stays until `tidy`: to end it takes 0.5 ms. A
    restore is done in steps, with any time in between.
    """

    def __init__(self, runtime: int) -> None:
        self._runtime = runtime
        self._ready: _Worker | None = None
        self._used: _Worker | None = None

    @property
    def processes(self) -> list[int]:
        """The one that waits for the next dump and the one that is at work, or was."""
        return [worker.pid for worker in (self._ready, self._used) if worker]

    def prepare(self) -> None:
        """Start the process for the next dump, unless it waits already."""
        if self._ready is None:
            self._ready = _Worker(self._runtime)

    def tidy(self) -> None:
        """End the process that has done its work."""
        if self._used is not None:
            self._used.end()
            self._used = None

    def dump(
        self,
        pid: int,
        images: int,
        pipes: Sequence[int],
        watched: Sequence[str],
        when_frozen: Callable[[], None],
        before_thaw: Callable[[], None],
    ) -> DumpTimes:
        """Write the process tree of `pid` into the directory descriptor `images`; it runs on.

        `pipes` are the inodes of the pipes that it shares with the supervisor, `watched` the
        folders where CRIU looks for files that it knows by handle only (inotify). `when_frozen` is
        called when the tree stands frozen and CRIU begins with its work there, `before_thaw` when
        CRIU has left it. Raises CriuError.
        """
        options: list[Field] = [
            (2, pid),
            (3, True),  # leave_running
            (64, _SKIP_NETWORK_LOCK),
            (35, _GHOST_LIMIT),
            *[(36, path) for path in watched],
            *[(37, f"pipe[{inode}]") for inode in pipes],
            *_common(images, images, "dump.log"),
        ]
        worker = self._next()
        with self._at_work(worker):
            _send(worker.rpc, _DUMP, options)
            hooks = {_FROZEN: when_frozen, "post-dump": before_thaw}
            _result(worker, images, "dump.log", hooks)
        if f"ids-{pid}.img" not in os.listdir(images):  # CRIU takes a zombie for a fine tree
            raise CriuError("the guest was ended meanwhile")
        return _times(images)

    def restore(self, pipes: Sequence[int]) -> Restoring:
        """Start a process for a restore, with the descriptors that take the places of pipes."""
        return Restoring(self._runtime, pipes, self._at_work)

    def check(self) -> None:
        """Ask CRIU for nothing: it probes the machine and keeps what it finds."""
        worker = self._next()
        with self._at_work(worker):
            options: list[Field] = [(1, self._runtime), (67, True)]
            worker.rpc.send(protobuf.encode([(1, _CHECK), (2, protobuf.encode(options))]))
            worker.rpc.recv(_MAX_ANSWER)

    def _next(self) -> _Worker:
        """The waiting process if it will do, else a new one."""
        worker, self._ready = self._ready, None
        if worker is None or worker.has_ended:
            worker = _Worker(self._runtime)
        return worker

    @contextmanager
    def _at_work(self, worker: _Worker) -> Iterator[None]:
        """`tidy` ends it afterwards. One that fails is ended at once: it may still hold the guest,
        and write images that are taken away."""
        self._used = worker
        try:
            with _conversation():
                yield
        except BaseException:
            self.tidy()
            raise


class Restoring:
    """A restore. Its processes go no further than the threshold before `finish`: each has its
    memory then, but no clock, no descriptor and no second thread."""

    def __init__(
        self,
        runtime: int,
        pipes: Sequence[int],
        at_work: Callable[[_Worker], AbstractContextManager[None]],
    ) -> None:
        self.approached = False
        """Whether there are processes."""
        self._at_work = at_work
        self._work = -1
        self._threshold, self._latch = os.pipe()  # who reads waits until the latter is closed
        try:
            way = {_THRESHOLD: f"/proc/1/fd/{self._threshold}"}
            self._worker = _Worker(runtime, pipes, _RESTORE_SHIMS, way)
        except BaseException:
            self._remove_threshold()
            raise

    def begin(self, images: int, work: int, pipes: Sequence[int]) -> None:
        """Have CRIU read the images of a dumped tree, with the inodes that its pipes had, in the
        order of the descriptors. `work` takes CRIU's log."""
        inherited = [
            (27, protobuf.encode([(1, f"pipe:[{inode}]"), (2, _FIRST_PIPE_FD + i)]))
            for i, inode in enumerate(pipes)
        ]
        self._work = work
        _send(self._worker.rpc, _RESTORE, [*inherited, *_common(images, work, "restore.log")])

    @property
    def waits(self) -> bool:
        """Whether it can go on: somebody may have ended CRIU, or, of which it tells, a process that
        it has made."""
        if self._worker.has_ended:
            return False
        return not (self.approached and select.select([self._worker.rpc], [], [], 0)[0])

    def approach(self) -> None:
        """Once CRIU has read the images, have the processes made, as far as the threshold. Raises
        CriuError."""
        with _conversation():
            notice = dict(protobuf.decode(_receive(self._worker.rpc, self._worker.pid)))
            if notice.get(1) != _NOTIFY:
                raise CriuError(why_refused(self._work, "restore.log") or _NO_REASON)
            self.approached = True
            _acknowledge(self._worker, well=True)

    def open(self) -> None:
        """Let the processes over the threshold. CRIU lets none of them run before `finish`."""
        os.close(self._latch)
        self._latch = -1

    def finish(self) -> int:
        """Have them run; the process id of the tree's root, a child of PID 1. Raises CriuError."""
        with self._at_work(self._worker):
            answer = _result(self._worker, self._work, "restore.log", {})
        self._remove_threshold()
        return int(dict(protobuf.decode(bytes(answer[4])))[1])  # criu_resp.restore.pid

    def end(self) -> None:
        """It is not wanted any more; the processes that it has made are for others to end."""
        self._worker.end()
        self._remove_threshold()

    def _remove_threshold(self) -> None:
        for descriptor in {self._threshold, self._latch} - {-1}:
            os.close(descriptor)
        self._threshold = self._latch = -1


class _Worker:
    """A `criu swrk` with its end of a socket as descriptor 3."""

    def __init__(
        self,
        runtime: int,
        inherited: Sequence[int] = (),
        shims: str = DUMP_SHIMS,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """`more` is added to its environment."""
        self.rpc, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        quiet = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_WRONLY, 0) for number in (1, 2)]
        actions = [*quiet, (os.POSIX_SPAWN_DUP2, theirs.fileno(), _RPC_FD)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, _FIRST_PIPE_FD + i) for i, fd in enumerate(inherited)]
        environment = {
            "PATH": "/usr/sbin:/usr/bin",
            "LD_PRELOAD": shims,
            "XDG_RUNTIME_DIR": f"/proc/1/fd/{runtime}",
            **(more or {}),
        }
        command = ["criu", "swrk", str(_RPC_FD)]
        self.pid = os.posix_spawn(CRIU, command, environment, file_actions=actions, setpgroup=0)
        theirs.close()

    @property
    def has_ended(self) -> bool:
        """Whether somebody, the guest has the same user id, has ended it while it waited."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        except ChildProcessError:  # and it was reaped with the orphans
            return True

    def end(self) -> None:
        """It has answered, or never will."""
        self.rpc.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextmanager
def _conversation() -> Iterator[None]:
    """With a CRIU that may be ended meanwhile."""
    try:
        yield
    except ConnectionError as error:
        raise CriuError("CRIU was ended before it had done its work") from error


def _common(images: int, work: int, log: str) -> list[Field]:
    return [
        (1, images),
        (17, work),
        (5, True),  # tcp_established
        (7, True),  # shell_job
        (8, True),  # file_locks
        (9, _LOG_LEVEL),
        (10, log),
        (12, True),  # notify_scripts
        (24, True),
        (34, _IGNORE_CGROUPS),
        (67, True),  # unprivileged
    ]


def _send(rpc: socket.socket, kind: int, options: list[Field]) -> None:
    rpc.send(protobuf.encode([(1, kind), (2, protobuf.encode(options))]))


def _result(
    worker: _Worker, work: int, log: str, hooks: dict[str, Callable[[], None]]
) -> dict[int, int | bytes]:
    """Serve CRIU's notifications until its answer comes."""
    failure: Exception | None = None
    while True:
        data = _receive(worker.rpc, worker.pid)
        if not data:
            raise CriuError(why_refused(work, log) or "CRIU ended without an answer")
        answer = dict(protobuf.decode(data))
        if answer.get(1) != _NOTIFY:
            break
        notify = dict(protobuf.decode(bytes(answer[5])))
        name = bytes(notify[1]).decode()
        beside = name == _FROZEN
        if beside:
            _acknowledge(worker, well=True)
        try:
            if name in hooks and failure is None:
                hooks[name]()
        except Exception as error:  # noqa: BLE001  told to CRIU, so that it lets the guest go, then raised
            failure = error
        if not beside:
            _acknowledge(worker, well=failure is None)
    if failure is not None:
        raise failure
    if not answer.get(2):
        raise CriuError(why_refused(work, log) or _NO_REASON)
    return answer


def _acknowledge(worker: _Worker, *, well: bool) -> None:
    worker.rpc.send(protobuf.encode([(1, _NOTIFY), (3, well)]))


def _receive(rpc: socket.socket, pid: int) -> bytes:
    rpc.settimeout(_TICK_SECONDS)
    stops = 0
    for _ in range(int(_PATIENCE_SECONDS / _TICK_SECONDS)):
        try:
            return rpc.recv(_MAX_ANSWER)
        except TimeoutError:
            if _waits_in_vain(pid):
                raise CriuError("a process was ended while CRIU held it") from None
            if _is_stopped(pid):
                stops += 1
                if stops == _STOPS:
                    raise CriuError("a process keeps stopping CRIU; end it") from None
                os.killpg(pid, signal.SIGCONT)
    raise CriuError(f"CRIU did not answer within {_PATIENCE_SECONDS} s")


def _waits_in_vain(pid: int) -> bool:
    """Whether a process with threads was killed while CRIU traced it: it stays a zombie until its
    threads are let go, and CRIU lets them go after it has seen the end of it."""
    for traced in activity.processes():
        try:
            with open(f"/proc/{traced}/status", errors="replace") as file:
                status = file.read()
        except OSError:
            continue
        if "\nState:\tZ" in status and f"\nTracerPid:\t{pid}\n" in status:
            return True
    return False


def _is_stopped(group: int) -> bool:
    """Whether someone has stopped one of CRIU's processes. They have the guest's user id, so until
    it is frozen it can."""
    for pid in activity.processes():
        try:
            with open(f"/proc/{pid}/stat", errors="replace") as file:
                state, _, of_group, *_ = file.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if state == "T" and int(of_group) == group:
            return True
    return False


def _times(images: int) -> DumpTimes:
    """From CRIU's `stats-dump`: two magic numbers, a length, a stats_entry."""
    with open(os.open("stats-dump", os.O_RDONLY, dir_fd=images), "rb") as file:
        entry = dict(protobuf.decode(file.read()[12:]))
    fields = dict(protobuf.decode(bytes(entry[1])))
    return DumpTimes(frozen=int(fields.get(2, 0)), memory=int(fields.get(3, 0)))
