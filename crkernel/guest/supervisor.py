"""PID 1 of a sandbox: owns the guest, calls CRIU, speaks with the kernel.

One loop over a socket and five pipes. Requests are served one after the other, because nothing can
sensibly happen beside a dump or a restore. It has no signal handler: a guest of the same user
could call one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import activity, golden, integrity, memory, mounts, process, record, seccomp, uplink, wire
from . import syscalls as sc
from .clock import Clock
from .criu import Criu, CriuError
from .eviction import hold
from .link import Channel
from .mapped import mapped
from .process import Guest, GuestEnded
from .refusals import PROCESSES_TAKEN, STAGING_FULL, SYSTEM_V
from .rest import Rest
from .restore import Restores
from .tree import Tree

_HELLO_SECONDS = 20.0
_ANSWER_SECONDS = 2.0
_WATCHED = (process.WORK, "/tmp")


class Refused(Exception):
    """An operation did not work; crosses the wire as data."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.data = {"kind": kind, "message": message}


def main(kernel: Channel, disk: int, settled: int, *, network: bool) -> None:
    """Be PID 1 until the kernel closes the socket. With `network` the nest brings one, when the
    descriptor `settled` is closed."""
    sc.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's only handler
    tree, staging, work = mounts.build(disk, network=network)
    mounts.own_connections()
    if network:
        uplink.tune()
    os.close(settled)
    mounts.loopback_up()
    socket.sethostname("crkernel")
    sc.no_new_privileges()
    sc.install_seccomp(seccomp.program())
    Supervisor(kernel, staging, tree, work, network=network).serve()


class Supervisor:
    """Serves one kernel over the channel `kernel`. Checkpoints lie in the directory descriptor
    `staging`, the writable tree in `tree`, what else it writes in `work`."""

    def __init__(
        self, kernel: Channel, staging: int, tree: int, work: int, *, network: bool
    ) -> None:
        self._kernel = kernel
        self._network = network
        self._requests = wire.Decoder()
        self._staging = staging
        self._tree = Tree(tree, staging)
        self._clock = Clock()
        self._guest: Guest | None = None
        self._hello: wire.Message = {}
        self._memory: wire.Message = {}  # fingerprints of what the guest was restored with
        self._placed: list[int] = []  # descriptors that hold what no checkpoint names yet
        self._selector = selectors.DefaultSelector()
        self._selector.register(kernel, selectors.EVENT_READ, self._on_request)
        self._operations: dict[str, Callable[[wire.Message], wire.Message | None]] = {
            "boot": self._boot,
            "call": self._call,
            "dump": self._dump,
            "kill": self._kill,
            "move": self._move,
            "place": self._place,
            "prepare": self._prepare,
            "restore": self._restore,
            "rested": self._is_rested,
            "warm": self._warm,
        }
        self._criu = Criu(record.open_directory(staging, "runtime"))
        self._restores = Restores(staging, work, self._tree, self._criu)
        self._rest = Rest(lambda: self._criu.processes)

    def serve(self) -> None:
        """Until the kernel is gone; then everything in the sandbox ends with PID 1."""
        while True:
            for key, _ in self._selector.select(self._rest.timeout):
                key.data()
            self._rest.settle()
            self._reap_orphans()
            if self._guest is not None:
                self._prepare_dump()

    def _prepare_dump(self) -> None:
        with contextlib.suppress(OSError):  # then the next dump starts its own
            self._criu.prepare()

    def _on_request(self) -> None:
        data = self._kernel.recv(1 << 18)
        if not data:
            os._exit(0)
        for body in self._requests.feed(data):
            request = wire.parse(body)
            try:
                answer = self._operations[request["op"]](request)
            except Refused as refused:
                answer = {"error": refused.data}
            except OSError as error:
                answer = {"error": {"kind": "EngineError", "message": f"{request['op']}: {error}"}}
            if answer is not None:
                self._kernel.sendall(wire.pack({"id": request["id"]} | answer))
            self._criu.tidy()  # nobody waits for that any more

    # -- operations

    def _move(self, request: wire.Message) -> None:
        """Serve the kernel that has come: its stream takes the place of the nest's, see `warm`."""
        self._kernel.sendall(wire.pack({"id": request["id"]}))
        self._selector.unregister(self._kernel)
        self._kernel = self._kernel.successor()
        self._selector.register(self._kernel, selectors.EVENT_READ, self._on_request)

    def _warm(self, _request: wire.Message) -> wire.Message:
        """Have CRIU find out what this machine can do before anybody waits for it."""
        with contextlib.suppress(CriuError):  # the dump that fails for it tells why
            self._criu.check()
        if self._guest is None:
            self._restores.warm()
        if self._network:
            uplink.is_up()
        return {}

    def _boot(self, request: wire.Message) -> wire.Message:
        self._expect_none()
        self._await_network()
        if not process.has_room(request["limits"]["nproc"]):
            raise Refused("EngineError", PROCESSES_TAKEN)
        self._restores.drop()
        self._clock.part()
        pid, pipes = process.launch(request["command"], request["environment"], request["limits"])
        self._clock.share()  # or no CRIU could be spawned by a Linux before 6.3
        self._hello = self._adopt(Guest(pid, pipes, self._forward))
        self._rest.of(pid, _worker(self._hello))
        return {"hello": self._hello}

    def _call(self, request: wire.Message) -> wire.Message | None:
        """The guest answers, unless it was to be called at rest only, and is not."""
        guest = self._living()
        if request["at_rest"] is True and not (answer := self._is_rested(request))["rested"]:
            return answer
        self._rest.called(look=request["look"] is True)
        try:
            guest.call(request["call"])
        except GuestEnded as error:
            raise Refused("SandboxDied", "the guest has just ended") from error
        if guest.wants_to_write:
            with contextlib.suppress(KeyError):  # an earlier call waits as well
                descriptor = guest.pipes.ours[process.CALLS_FD]
                self._selector.register(descriptor, selectors.EVENT_WRITE, self._on_room)
        return None

    def _is_rested(self, _request: wire.Message) -> wire.Message:
        """Whether the guest still is where its newest checkpoint left it."""
        self._drain(self._living())
        return {"rested": self._rest.holds()}

    def _dump(self, request: wire.Message) -> wire.Message:
        guest, name = self._living(), str(request["name"])
        start = time.monotonic()
        self._rest.end()
        self._finish_calls(guest)
        self._rest.come_to_wait()
        self._reap_orphans()
        meta: wire.Message = {"pipes": guest.pipes.inodes(), "hello": self._hello}
        images = record.open_directory(self._staging, name, make=True)

        def when_frozen() -> None:
            if strays := activity.strays((guest.pid, *self._criu.processes)):
                raise CriuError(f"{', '.join(strays)} left the guest's process tree; end it")
            if activity.uses_system_v():
                raise CriuError(SYSTEM_V)
            guest.drain()
            shared, files = mapped(self._criu.processes)
            snapshot = self._tree.snapshot(name, shared)
            meta.update(files=snapshot.name, added=snapshot.added, leftovers=guest.leftovers())
            meta["memory"] = record.fingerprints(files)
            if other := integrity.changed(self._memory, meta["memory"]):
                raise CriuError(f"the memory file {other}, on which the guest runs, was changed")
            if bad := {memory.path_of(file) for file in files} & set(request["damaged"]):
                raise CriuError(f"the memory file {min(bad)}, on which the guest runs, is damaged")
            meta.update(monotonic=self._clock.now(), last_pid=process.last_pid())
            self._prepare_dump()  # CRIU is at work for some more milliseconds

        try:
            inodes = list(meta["pipes"].values())
            times = self._criu.dump(
                guest.pid, images, inodes, _WATCHED, when_frozen, self._rest.begin
            )
            meta["images"] = record.images(images)
            record.write(images, meta)
            while self._placed:
                os.close(self._placed.pop())
        except (CriuError, OSError, wire.WireError) as error:
            shutil.rmtree(name, dir_fd=self._staging)
            self._tree.take_back(name)
            # The session knows of this state, and would gain nothing by a second try. CRIU may have
            # let go of the guest in the middle of anything, so its threads settle first.
            self._rest.begin_soon()
            raise Refused("DumpRefused", _words(error)) from error
        finally:
            os.close(images)
        return {
            "seconds": time.monotonic() - start,
            "frozen": times.frozen / 1e6,
            "memory": sum(size for size, *_ in meta["images"].values()),
            "files": meta["added"],
        }

    def _finish_calls(self, guest: Guest) -> None:
        try:
            guest.finish_calls(_ANSWER_SECONDS)
        except (TimeoutError, wire.WireError) as error:
            raise Refused("DumpRefused", f"the guest is busy with itself: {error}") from error
        except GuestEnded as error:
            raise Refused("SandboxDied", "the guest has just ended") from error
        self._drain(guest)

    def _prepare(self, request: wire.Message) -> wire.Message:
        """Do all of a restore that can be done before somebody waits for it."""
        self._expect_none()
        with _restoring():
            return {"ready": self._restores.prepare(str(request["name"]))}

    def _restore(self, request: wire.Message) -> wire.Message:
        start = time.monotonic()
        self._expect_none()
        self._await_network()
        with _restoring():
            restore = self._restores.take(str(request["name"]))
            guest = restore.finish(self._forward, self._clock, twin=request["twin"])
            seconds = time.monotonic() - start
            self._clock.share()
        try:
            fresh = request["name"].startswith(golden.PREFIX)
            guest.call({"id": 0, "op": "hello", "restored": True, "fresh": fresh})
        except GuestEnded:
            pass  # the wait for its answer tells
        self._adopt(guest)
        self._hello, self._memory = restore.hello, restore.memory
        self._rest.of(guest.pid, _worker(self._hello))
        return {"hello": self._hello, "seconds": seconds}

    def _expect_none(self) -> None:
        if self._guest:
            raise Refused("EngineError", "the sandbox has a guest already")

    def _await_network(self) -> None:
        if self._network and not uplink.is_up():
            raise Refused(
                "EngineError", "no way to the network came up (the kernel's log tells why)"
            )

    def _kill(self, _request: wire.Message) -> wire.Message:
        """End the guest at once; how it ended follows as an event."""
        if self._guest:
            os.kill(self._guest.pid, signal.SIGKILL)
        return {}

    def _place(self, request: wire.Message) -> wire.Message:
        """Put files that somebody else made in the place of some of the guest's."""
        self._rest.end()
        files = str(request["files"])
        try:
            self._placed.append(hold(self._staging, files.removesuffix(".tree")))
            self._tree.place(files, request["folder"], request["leaves"])
        except OSError as error:
            full = error.errno == errno.ENOSPC
            reason = "they do not fit (limit disk_size)" if full else _words(error)
            raise Refused(
                "EngineError", f"the guest's files cannot be changed: {reason}"
            ) from error
        return {}

    # -- the guest's side

    def _living(self) -> Guest:
        if self._guest is None:
            raise Refused("SandboxDied", "the guest has ended")
        return self._guest

    def _forward(self, frames: wire.Body) -> None:
        self._rest.disturb()
        self._kernel.sendall(frames)

    def _adopt(self, guest: Guest) -> wire.Message:
        """Wait for a guest's hello, then serve it. Raises Refused, and the guest is no more."""
        try:
            hello = guest.first_reply(_HELLO_SECONDS)
        except (GuestEnded, TimeoutError, wire.WireError) as error:
            if isinstance(error, GuestEnded):
                code = _exit_code(guest)
                how = f"exit code {code}" if code >= 0 else f"signal {-code}"
                reason = f"it ended at once with {how}"
            else:
                reason = str(error)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(guest.pid, signal.SIGKILL)
            guest.close()
            raise Refused("SandboxDied", f"the guest did not come up: {reason}") from error
        for number, descriptor in guest.pipes.ours.items():
            if number != process.CALLS_FD:
                self._selector.register(descriptor, selectors.EVENT_READ, self._on_output)
        self._selector.register(guest.pidfd, selectors.EVENT_READ, self._on_exit)
        self._guest = guest
        return hello

    def _on_output(self) -> None:
        if self._guest is None:
            return  # it has just been dismissed, by an earlier event of the same round
        try:
            self._drain(self._guest)
        except wire.WireError as error:
            self._dismiss({"reason": f"it broke the protocol: {error}"})

    def _drain(self, guest: Guest) -> None:
        guest.drain()
        for data in wire.join(guest.take_replies(), wire.REPLY):
            self._kernel.sendall(data)
        if guest.answered:
            self._rest.answered()

    def _on_room(self) -> None:
        guest = self._living()
        with contextlib.suppress(GuestEnded):  # its pidfd tells the rest
            guest.flush()
        if not guest.wants_to_write:
            self._selector.unregister(guest.pipes.ours[process.CALLS_FD])

    def _on_exit(self) -> None:
        if self._guest is None:
            return
        guest = self._guest
        self._on_output()  # its last words, which may break the protocol and dismiss it
        if self._guest is not guest:
            return
        code = _exit_code(guest)
        self._dismiss({"code": code} if code >= 0 else {"signal": -code})

    def _dismiss(self, how: wire.Message) -> None:
        """Tell the kernel that the guest is no more, and make it true."""
        guest = self._living()
        self._guest = None
        for descriptor in (*guest.pipes.ours.values(), guest.pidfd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        process.kill_all()
        guest.close()
        self._kernel.sendall(wire.pack({"event": "exited"} | how))

    def _reap_orphans(self) -> None:
        """PID 1 inherits whoever lost its parent; the guest itself is left to `_on_exit`."""
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and (
                self._guest is None or child.si_pid != self._guest.pid
            ):
                os.waitpid(child.si_pid, 0)


def _exit_code(guest: Guest) -> int:
    """Of one that has ended; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(guest.pid, 0)[1])


def _worker(hello: wire.Message) -> int:
    """The thread of a guest that speaks with us."""
    thread = hello.get("worker_tid")
    return thread if isinstance(thread, int) else 0


@contextmanager
def _restoring() -> Iterator[None]:
    """What comes of a restore that does not work."""
    try:
        yield
    except (CriuError, OSError) as error:
        raise Refused("RestoreFailed", _words(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("RestoreFailed", f"the checkpoint is damaged: {error!r}") from error


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return STAGING_FULL
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {str(error.filename)[:200]}"
    return str(error)
