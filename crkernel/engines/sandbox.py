"""The kernel's end of a sandbox: it speaks the wire protocol with the supervisor there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from crkernel.engines.answers import Dump, Moved, Restored, died
from crkernel.engines.limits import Limits
from crkernel.engines.looks import Looks
from crkernel.engines.wear import Wear
from crkernel.errors import from_wire
from crkernel.guest import wire
from crkernel.guest.wire import Message, WireError

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_MOST_COMPLAINTS = 20
_KIND = 40
"""Characters of an event's kind that are logged."""


class Reader(Protocol):
    """What comes out of a sandbox: an `asyncio.StreamReader` or what is read like one."""

    async def read(self, size: int, /) -> bytes:
        """Some bytes; none at the end."""


async def _no_idea() -> str:
    return "its sandbox ended"


class Sandbox:
    """The kernel's end of one sandbox.

    `on_event` takes what the guest prints and shows while it lives (an event of the guest with its
    `body`, the JSON that it was), `on_exit` how it ended, once.
    Every failure of the other side becomes an error of our tree here. Nothing that comes out of
    the guest is trusted: what is no valid message ends the sandbox.
    """

    def __init__(
        self,
        reader: Reader,
        writer: asyncio.StreamWriter,
        end: Callable[[], Awaitable[None]],
        why: Callable[[], Awaitable[str]] = _no_idea,
        pid: int = 0,
    ) -> None:
        """`end` ends it; `why` says what became of it when nothing more comes; `pid` is its PID 1
        as its nest sees it."""
        self.on_event: Callable[[Message], None] = lambda _: None
        self.on_exit: Callable[[Message], None] = lambda _: None
        self._reader = reader
        self._writer = writer
        self._end = end
        self._why = why
        self.pid = pid
        self.has_run = False
        """Whether a cell has run here since the guest came up."""
        self.has_network = False
        """Whether its guest reaches more than its own loopback."""
        self.wear = Wear()
        """What its dumps have cost."""
        self._looks = Looks()
        self._complained: set[str] = set()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._calls: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 0
        self._retiring = 0  # id of the request whose answer may be the last that is heard
        self._death: Message | None = None
        self._receiver = asyncio.create_task(self._receive())

    @property
    def death(self) -> Message | None:
        """How the guest ended: {"code"}, {"signal"} or {"reason"}; None while it lives."""
        return self._death

    async def warm(self) -> None:
        """Do beforehand what the first dump or restore would wait for."""
        await self._request("warm")

    async def boot(
        self, command: list[str], environment: dict[str, str], limits: Limits
    ) -> Message:
        """Start a guest and return its hello."""
        rlimits = {
            "data": limits.memory,
            "nproc": limits.max_processes,
            "fsize": limits.file_size,
            "core": 0,
        }
        self.wear = Wear(least=0)  # all of its memory is its own, and a twin has it in a file
        answer = await self._request(
            "boot", command=command, environment=environment, limits=rlimits
        )
        return dict(answer["hello"])

    async def look(self, op: str, **fields: Any) -> Message:
        """Ask the guest something that changes nothing; what it has just answered may do, if it
        rests since. Raises SandboxDied."""
        known, moves = self._looks.find(op, fields), self._looks.moves
        if known is not None and await self.rested():
            return known
        answer = await self.call(op, look=True, **fields)
        self._looks.add(op, fields, answer, moves)
        return answer

    def call(
        self, op: str, *, look: bool = False, at_rest: bool = False, **fields: Any
    ) -> asyncio.Future[Message]:
        """Have the guest do something; its reply, for which nobody has to wait. With `look` it only
        answers a question, and is at rest afterwards if it was before. With `at_rest` it does
        nothing unless it has `rested`. Raises SandboxDied, and Moved for that."""
        self.has_run = self.has_run or op == "execute"
        call = {"id": self._next_id + 1, "op": op, **fields}  # the id that the request gets
        return self._request("call", look=look, at_rest=at_rest, call=call)

    @property
    def unanswered(self) -> list[asyncio.Future[Message]]:
        """The calls that the guest has not answered yet; none while the supervisor, which does one
        thing after the other, may not have passed them on: a dump takes long."""
        is_free = len(self._calls) == len(self._waiting)
        return list(self._calls.values()) if is_free else []

    async def rested(self) -> bool:
        """Whether the guest still is where its newest checkpoint left it."""
        return bool((await self._request("rested"))["rested"])

    async def retire(self) -> bool:
        """As `rested`; and if so, hear nothing more of it, not even what comes along with the
        answer: its twin, which is to take its place, does the same."""
        answer = self._request("rested")
        self._retiring = self._next_id
        return bool((await answer)["rested"])

    async def dump(self, name: str, damaged: Iterable[str] = ()) -> Dump:
        """Take a checkpoint under a new name. Raises DumpRefused, also where the guest runs on one
        of the memory files that are known to be damaged; it runs on either way."""
        answer = await self._request("dump", name=name, damaged=sorted(damaged))
        self.wear.add(int(answer["memory"]))
        return Dump(
            seconds=float(answer["seconds"]),
            frozen=float(answer["frozen"]),
            memory=int(answer["memory"]),
            files=int(answer["files"]),
        )

    async def prepare(self, name: str) -> bool:
        """Do all of a restore that can be done before somebody waits for it, in this sandbox, which
        has had no guest yet; False if there is no memory for it. Whatever is restored then may be
        another checkpoint. Raises RestoreFailed; then the sandbox is of no more use."""
        return bool((await self._request("prepare", name=name))["ready"])

    async def restore(self, name: str, *, twin: bool = False) -> Restored:
        """Bring a checkpoint to life in this sandbox, which has had no guest yet; returns when the
        guest has answered. The clock of a `twin` goes on as that of the guest that was dumped.
        Raises RestoreFailed; then the sandbox is of no more use."""
        answer = await self._request("restore", name=name, twin=twin)
        return Restored.of(answer)

    async def place(self, files: str, folder: str, leaves: Sequence[str]) -> None:
        """Put what a courier brought in the place of some of the guest's files. Raises EngineError,
        and nothing is changed."""
        await self._request("place", files=files, folder=folder, leaves=leaves)

    async def npm(
        self, arguments: Sequence[str], checkpoint: str, folder: str, name: str | None
    ) -> tuple[int, str | None]:
        """In a courier: run npm on what a checkpoint has in `folder`. How it ended, and the name of
        the files in staging, of `name`, if they are to be kept and are others than before."""
        fields = {"checkpoint": checkpoint, "folder": folder, "name": name}
        answer = await self._request("npm", arguments=arguments, **fields)
        files = answer["files"]
        return int(answer["code"]), None if files is None else str(files)

    async def kill_guest(self) -> None:
        """End the guest at once, unless it has ended; `on_exit` follows."""
        if self._death is None:
            await self._request("kill")

    def silence(self) -> None:
        """Hear nothing more of it: it is about to be ended."""
        self.on_event = self.on_exit = lambda _: None

    async def end(self) -> None:
        """End the sandbox with everything in it. Safe to call twice."""
        self.silence()
        self._receiver.cancel()
        self._writer.close()
        self._fail({"reason": "its sandbox was ended"})
        await self._end()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _request(self, op: str, **fields: Any) -> asyncio.Future[Message]:
        """Send a request; its answer."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_heard)
        if self._death is not None:
            answer.set_exception(died(self._death))
            return answer
        number = self._next_id + 1
        frame = wire.pack({"op": op, "id": number, **fields})
        self._next_id = number
        self._waiting[number] = answer
        if op == "call":  # the guest answers it, unless the supervisor refuses
            self._calls[number] = answer
        moves = op != "rested" and fields.get("look") is not True
        if moves:
            self._looks.moved()
        answer.add_done_callback(lambda _: self._forget(number, moves=moves))
        self._writer.write(frame)
        return answer

    def _forget(self, number: int, *, moves: bool) -> None:
        self._waiting.pop(number, None)
        self._calls.pop(number, None)
        if moves:
            self._looks.moved()

    async def _receive(self) -> None:
        decoder = wire.Decoder()
        how: Message = {}
        try:
            while data := await self._reader.read(_CHUNK):
                for body in decoder.feed(data):
                    self._dispatch(body)
        except OSError as error:
            how = {"reason": f"the connection to its sandbox broke: {error}"}
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            how = {"reason": f"it sent what is no message: {error}"}
            self._writer.close()
        except Exception as error:  # no memory for it, or our bug: nobody listens any more
            log.exception("what a sandbox sent could not be taken")
            how = {"reason": f"what it sent could not be taken: {error!r}"}
            self._writer.close()
        if self._death is None:
            self._fail(how or {"reason": await self._why()})

    def _dispatch(self, body: wire.Body) -> None:
        kind = bytes(body[:1])
        if kind in (wire.EVENT, wire.REPLY):
            if isinstance(body, bytearray):
                del body[:1]  # a long one, and this does not copy it
            else:
                body = body[1:]
            message = wire.parse_guests(body)
        else:
            message = wire.parse(body)
        if kind == wire.EVENT:
            message["body"] = body
            self._hear(message)
            return
        if message.get("event") == "exited":
            self._fail(message)
        elif "event" in message:
            self._hear(message)
        else:
            replies = kind == wire.REPLY
            future = (self._calls if replies else self._waiting).get(message["id"])
            if future is None or future.done():
                return
            if message["id"] == self._retiring and message.get("rested") is True:
                self.silence()
            if "error" in message and not replies:
                future.set_exception(from_wire(message["error"]))
            elif message["id"] in self._calls and not replies:
                future.set_exception(Moved())
            else:
                future.set_result(message)

    def _hear(self, event: Message) -> None:
        try:
            self.on_event(event)
        except WireError as error:
            if kind := self._may_complain(event):
                log.warning("an event of the guest means nothing (%r): %s", kind, error)
        except Exception:  # our listener's bug, or a value that no front end can take
            if kind := self._may_complain(event):
                log.exception("an event of the guest could not be passed on (%r)", kind)

    def _may_complain(self, event: Message) -> str | None:
        """Its kind; None if that was complained of, or many were: a guest must not fill the log."""
        kind = event.get("event")
        kind = kind[:_KIND] if isinstance(kind, str) else type(kind).__name__
        if kind in self._complained or len(self._complained) == _MOST_COMPLAINTS:
            return None
        self._complained.add(kind)
        return kind

    def _fail(self, how: Message) -> None:
        if self._death is not None:
            return
        self._death = how
        for future in (*self._calls.values(), *self._waiting.values()):
            if not future.done():
                future.set_exception(died(how))
        self.on_exit(how)


def _heard(answer: asyncio.Future[Message]) -> None:
    """Whoever waits gets an error; that nobody waits is fine as well."""
    if not answer.cancelled():
        answer.exception()


async def restored(sandbox: Sandbox, name: str) -> Restored:
    """As `Sandbox.restore`, but that an empty sandbox in which it fails is ended."""
    try:
        return await sandbox.restore(name)
    except BaseException:
        await sandbox.end()
        raise
