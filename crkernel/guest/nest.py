"""The nest: one process per kernel session that owns staging and forks sandboxes.

It runs on the image's Python, in the user and mount namespace that `enter` made. Sandboxes are
forked from it, with all modules loaded, so that a new one costs milliseconds. Staging is a tmpfs
of its mount namespace: when the nest ends, however it ends, nothing is left of it.

Requests come over a link, see `link`; on the kernel's own machine that is descriptor 3, and
`sandbox` brings a socket along. In a container it is a `container_nest.ContainerNest`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial

from . import courier, golden, linger, supervisor, uplink, wire
from . import syscalls as sc
from .chores import CHORES, TRANSFERS, Json, clear_up
from .enter import CONTROL_FD
from .link import Channel, GateLink, SocketLink
from .mounts import RESOLV_CONF, STAGING
from .rebase import used
from .shipment import Refused
from .stay import Stay
from .warm import Warm

_NAMESPACES = sc.CLONE_NEWPID | sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
COURIER_NAMESPACES = _NAMESPACES & ~sc.CLONE_NEWNET
_WAKEUPS = 1 << 12
_NICE = 10


def main() -> None:
    """Serve until the engine closes the socket or dies."""
    sc.die_with_parent()
    furnish()
    nest = Nest(SocketLink(socket.socket(fileno=CONTROL_FD)))
    nest.answer({"ready": wire.PROTOCOL})
    nest.serve()


class Nest:
    """Serves one engine over `link`."""

    def __init__(self, link: SocketLink | GateLink | None) -> None:
        self._link = link
        self._sandboxes: set[int] = set()  # process ids
        self._uplinks = uplink.Uplinks(partial(self.fork, namespaces=0))
        self._ending: dict[int, int] = {}  # process id -> id of the request that waits for its end
        self._working: dict[int, Json] = {}  # process id of a child of ours -> what it was asked
        thin = partial(self._do, CHORES["thin"])
        self._stay = Stay(partial(self.fork, namespaces=0), _step_back, thin)
        self._warm: Warm | None = None  # a sandbox with a guest that waits for the kernel
        self._no_guest = ""  # why there is none, as was last told
        self._selector = selectors.DefaultSelector()
        self._wakeup, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        self._wakeup_writer = wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_wakeup)
        if link is not None:
            self.connect(link)

    def connect(self, link: SocketLink | GateLink) -> None:
        """Serve what comes over this one."""
        self._link = link
        self._selector.register(link, selectors.EVENT_READ, self._on_link)

    def hand_over(self, request: Json, descriptors: list[int]) -> bool:
        """End all sandboxes and wait for the next kernel, with what the one that goes left for it.
        False if none comes: then nobody needs this nest any more."""
        sc.die_with_parent(0)
        for pid in self._sandboxes:
            self._uplinks.end(pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._sandboxes.clear()
        self._end_chores()
        heir = self.await_heir(request)
        if heir is None:
            return False
        for pid in self._ending:  # nobody waits for it any more
            self._ending[pid] = -1
        assert self._link is not None
        self._selector.unregister(self._link)
        self._link.close()
        self.connect(heir)
        self.welcome(request, descriptors)
        return True

    def _end_chores(self) -> None:
        """None changes checkpoints any more, for the next kernel does not know of it: what is being
        dropped goes, all else is as it was."""
        for pid, work in self._working.items():
            if "name" in work:
                os.kill(pid, signal.SIGKILL)
            if "name" in work or work["op"] == "drop":
                del self._ending[pid]
                if os.waitpid(pid, 0)[1]:
                    clear_up(work)
        self._working.clear()
        self._stay.close()

    def await_heir(self, request: Json) -> SocketLink | GateLink | None:
        """Be there for the next kernel, say so, and wait for it."""
        listener = linger.listen(bytes.fromhex(request["address"]))
        self.answer({"id": request["id"]})
        heir = linger.await_heir(listener, request["token"].encode())
        listener.close()
        return SocketLink(heir) if heir else None

    def welcome(self, _request: Json, descriptors: list[int]) -> None:
        """Give the next kernel what the one before it left."""
        self.answer({"ready": wire.PROTOCOL}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def answer(self, message: Json, descriptors: list[int] | None = None) -> None:
        """Tell the engine."""
        assert self._link is not None
        self._link.send(message, descriptors)

    def serve(self) -> None:
        """Until the engine is gone."""
        while True:
            for key, _ in self._selector.select():
                if not key.data():
                    return

    def _on_wakeup(self) -> bool:
        self._wakeup.recv(_WAKEUPS)
        self._reap()
        return True

    def _on_link(self) -> bool:
        """Serve requests; False once there is nobody to serve."""
        assert self._link is not None
        try:
            requests = self._link.receive()
        except wire.WireError as error:  # whose request it was is not known
            self.answer({"error": {"kind": "EngineError", "message": f"a request: {error}"}})
            return True
        if requests is None:
            return False
        return all(self._serve(*request) for request in requests)

    def _serve(self, request: Json, descriptors: list[int]) -> bool:
        if request["op"] == "linger":
            return self.hand_over(request, descriptors)
        try:
            answer = self.operate(request, descriptors)
        except OSError as error:
            answer = {"error": {"kind": "EngineError", "message": f"{request['op']}: {error}"}}
        for descriptor in descriptors:
            os.close(descriptor)
        if answer is not None:
            self.answer({"id": request["id"]} | answer)
        return True

    def operate(self, request: Json, descriptors: list[int]) -> Json | None:
        """The answer, or None if it comes later."""
        if request["op"] == "sandbox":
            with self.channel(request, descriptors) as channel:
                return self._take_warm(channel, request) or {"pid": self._sandbox(channel, request)}
        if request["op"] in TRANSFERS:
            with self.channel(request, descriptors) as channel:
                work = partial(self._chore, partial(TRANSFERS[request["op"]], channel), request)
                self._working[self.fork(work, 0)] = request
            return None
        if request["op"] == "courier":
            channel, host = Channel(descriptors[0], descriptors[0]), descriptors[1]
            work = partial(deliver, channel, host, int(request["disk"]))
            return {"pid": self.fork(work, COURIER_NAMESPACES)}
        if request["op"] == "end":
            return self._end(int(request["pid"]), int(request["id"]))
        if request["op"] == "thin":
            self._working[self._stay.give(request)] = request
            return None
        if request["op"] in (*CHORES, "golden"):
            known = CHORES.get(request["op"])
            do = partial(self._chore, known) if known else self._golden
            self._working[self.fork(partial(do, request), 0)] = request
            return None
        taken, size = used()
        return {"used": taken, "size": size}

    @contextlib.contextmanager
    def channel(self, _request: Json, descriptors: list[int]) -> Iterator[Channel]:
        """The stream that a request brought; a child that is forked meanwhile keeps it."""
        yield Channel(descriptors[0], descriptors[0])

    def _sandbox(self, channel: Channel, request: Json) -> int:
        """Fork one that speaks by `channel`, with a way to the network if one is described; its
        process id."""
        disk, network = int(request["disk"]), request["network"]
        waiting, settled = os.pipe()
        pid = self.fork(partial(supervise, channel, disk, settled, network is not None))
        os.close(settled)
        if network is not None:
            os.read(waiting, 1)  # until it is in the network namespace where it stays
            self.link_up(pid, network)
        os.close(waiting)
        return pid

    def link_up(self, pid: int, nameserver: str) -> None:
        """Give a sandbox its way to the network, on which questions for names are sent there."""
        self._uplinks.start(pid, nameserver)

    def tend(self, wanted: Json | None) -> None:
        """While no kernel has come: have the sandbox ready for which it will send this request, if
        that is known, with a guest in it. One that has become of no use is replaced; if there can
        be none now, there may be later, or it is made when it is asked for."""
        self._reap()
        if self._warm is not None and self._warm.is_stale():
            self._cool_down()
        if wanted is None or self._warm is not None:
            return
        try:
            self._warm = Warm(wanted, self._sandbox)
        except (OSError, ValueError, LookupError) as error:
            for pid in list(self._sandboxes):
                self._end(pid, -1)
            if str(error) != self._no_guest:
                self._no_guest = str(error)
                print(f"no guest waits for a kernel: {error}", file=sys.stderr, flush=True)

    def _cool_down(self) -> None:
        warm, self._warm = self._warm, None
        assert warm is not None
        warm.drop()
        self._end(warm.pid, -1)

    def _take_warm(self, channel: Channel, request: Json) -> Json | None:
        """The sandbox that waits, if it is what is asked for. There is no second request for it."""
        if self._warm is None:
            return None
        moved = self._warm.move(channel) if self._warm.suits(request) else None
        if moved is None:
            self._cool_down()
        self._warm = None
        return moved

    def leave(self) -> None:
        """In a sandbox: close what is the nest's."""
        if self._link is not None:  # there is none while nobody has come yet
            self._link.close()

    def _end(self, pid: int, request: int) -> Json | None:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return {}
        except ChildProcessError:
            return {}
        finally:
            self._sandboxes.discard(pid)
            self._uplinks.end(pid)
        os.kill(pid, signal.SIGKILL)
        self._ending[pid] = request
        return None

    def _reap(self) -> None:
        """Answer for the ended that somebody waits for; a sandbox that nobody does is left as a
        zombie, so that its process id is still its own when `end` comes."""
        for pid, request in list(self._ending.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended != pid:
                continue
            del self._ending[pid]
            if (work := self._working.pop(pid, None)) and status:  # it has not answered for itself
                self.answer({"id": work["id"], "error": clear_up(work)})
            elif request >= 0:
                self.answer({"id": request})
            elif (news := self._uplinks.ended(pid, status)) and self._link is not None:
                self.answer(news)

    def fork(self, work: Callable[[], None], namespaces: int = _NAMESPACES) -> int:
        """Do it in a child that never returns from here: PID 1 of new namespaces, a sandbox or a
        courier, or without any (0) one of the nest's own."""
        pid = sc.fork_into(namespaces) if namespaces else os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PID 1 has no handler to be called
            try:
                if namespaces:
                    self.leave()
                with contextlib.suppress(ConnectionError):  # who would be told has gone
                    work()
            except BaseException as error:  # noqa: BLE001  the child must not go on as a nest
                sys.excepthook(type(error), error, error.__traceback__)
            finally:
                os._exit(1)
        if namespaces:
            self._sandboxes.add(pid)
        else:
            self._ending[pid] = -1
        return pid

    def _chore(self, do: Callable[[Json], Json], request: Json) -> None:
        """Do something with checkpoints in staging that may take a while."""
        if request.get("urgent"):
            sc.die_with_parent()
        else:
            _step_back()
        self._do(do, request)
        os._exit(0)

    def _do(self, do: Callable[[Json], Json], request: Json) -> None:
        """As `_chore`, in a child that has got ready for it; it answers."""
        try:
            answer = do(request)
        except Refused as refused:
            answer = {"error": refused.data}
        except (OSError, ValueError, KeyError) as error:
            failure = {"kind": "EngineError", "message": f"{request['op']}: {error}"}
            answer = {"error": failure}
        self.answer({"id": request["id"]} | answer)

    def _golden(self, request: Json) -> None:
        """Make a golden root of a checkpoint and hand its files to the engine."""
        _step_back()
        target = f"{STAGING}/{request['name']}.golden"
        try:
            files = golden.make(f"{STAGING}/{request['name']}", target, request["key"])
            self.hand_golden(request, files)
        except (OSError, ValueError, KeyError) as error:
            failure = {"kind": "EngineError", "message": f"golden root: {error!r}"}
            self.answer({"id": request["id"], "error": failure})
        finally:
            shutil.rmtree(target, ignore_errors=True)
        os._exit(0)

    def hand_golden(self, request: Json, files: dict[str, int]) -> None:
        """Give a finished golden root to the engine, which keeps it."""
        names = sorted(files)
        self.answer({"id": request["id"], "files": names}, [files[name] for name in names])


def _step_back() -> None:
    """In a child that does what can wait."""
    sc.die_with_parent()
    os.nice(_NICE)


def furnish() -> None:
    """Make what sandboxes find in staging, and name the resolver of those that have a network."""
    os.mkdir(f"{STAGING}/runtime", 0o700)
    with open(RESOLV_CONF, "w") as file:
        file.write(f"nameserver {uplink.RESOLVER}\n")


def supervise(channel: Channel, disk: int, settled: int, network: bool) -> None:
    """Be PID 1 of a sandbox. A lost connection ends it without a word."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        supervisor.main(channel, disk, settled, network=network)


def deliver(channel: Channel, host: int, disk: int) -> None:
    """Be PID 1 of a courier, see `supervise`."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        courier.main(channel, host, disk)
