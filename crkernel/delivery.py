"""Has packages brought to a guest: npm runs in a courier, outside of every sandbox."""

from __future__ import annotations

import secrets
import time

from crkernel import npm, npm_host
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import NpmFailed, SandboxDied
from crkernel.guest.process import WORK
from crkernel.npm import Npm
from crkernel.outcome import Json, Sink

FOLDER = WORK.removeprefix("/home/")
"""The working folder, as the guest's tree has it."""


class Delivery:
    """Runs npm for one session, one call at a time."""

    def __init__(self, engine: Engine) -> None:
        self.under_way = False
        """Whether npm runs, or is about to."""
        self._engine = engine
        self._courier: Sandbox | None = None
        self._interrupted = False

    async def run(self, call: Npm, checkpoint: str, sink: Sink) -> str | None:
        """Run npm on the files of a checkpoint. The name of the files that came of it, in staging;
        None if nothing changed. Raises NpmFailed, EngineError."""
        self.under_way, self._interrupted = True, False
        ear = _Ear(sink, shows=call.looks or npm.REQUESTS in call.words)
        try:
            code, files = await self._npm(call, checkpoint, ear)
        except SandboxDied as death:
            if self._interrupted:
                raise NpmFailed("npm was interrupted; the packages are as they were") from None
            how = (self._courier and self._courier.death) or {}
            why = how.get("reason", death)
            raise NpmFailed(f"npm was ended: {why}", hint="try again") from death
        finally:
            ear.end()
            self.under_way = False
            await self._end()
        if code and not (call.looks and not ear.complaint):  # `outdated` says so by its code
            raise npm.explain(ear.complaint, code)
        return files

    async def interrupt(self) -> None:
        """End npm; what it did so far goes with it."""
        self._interrupted = True
        await self._end()

    async def _npm(self, call: Npm, checkpoint: str, ear: _Ear) -> tuple[int, str | None]:
        courier = self._courier = await self._engine.courier(npm_host.settings())
        courier.on_event = ear.hear
        if self._interrupted:  # while it came up
            raise SandboxDied("interrupted")
        name = None if call.looks else f"npm-{secrets.token_hex(8)}"
        words = [call.verb, *call.words]
        if not ear.shows:
            words.append(npm.REQUESTS)
        return await courier.npm(words, checkpoint, FOLDER, name)

    async def _end(self) -> None:
        courier, self._courier = self._courier, None
        if courier is not None:
            await courier.end()


class _Ear:
    """Passes on what npm prints, but for its complaints, which it keeps, and its requests, which
    become one line of progress unless it `shows` all there is."""

    def __init__(self, sink: Sink, *, shows: bool) -> None:
        self.complaint: list[str] = []
        self.shows = shows
        self._progress = npm.Progress(time.monotonic())
        self._sink = sink
        self._rest = ""

    def hear(self, event: Json) -> None:
        name, text = event["name"], event["text"]
        if name == "stdout":
            self._sink.stream(name, self._progress.end() + text)
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)

    def end(self) -> None:
        if self._rest:
            self._take(self._rest)
        self._print(self._progress.end())

    def _print(self, text: str) -> None:
        if text:
            self._sink.stream("stdout", text)

    def _take(self, line: str) -> None:
        if line.startswith(npm.ERROR):
            self.complaint.append(line.removeprefix(npm.ERROR))
        elif not self.shows and self._progress.takes(line):
            if self._sink.audience.at != "unattended":
                self._print(self._progress.text(time.monotonic()))
        else:
            self._print(self._progress.end())
            self._sink.stream("stderr", line + "\n")
