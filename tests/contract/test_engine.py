"""What every engine must do: one suite, run against the one that `--engine` names.

Cells of tests that run on the fake as well are both JavaScript and what `fake_guest.py` takes. What
needs real processes is marked `real`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import containers
import driver
import psutil
import pytest

from crkernel.engines import Engine, Limits, Sandbox, open_engine
from crkernel.engines.answers import Moved
from crkernel.errors import DumpRefused, EngineError, RestoreFailed, SandboxDied
from crkernel.guest import link
from crkernel.javascript import JAVASCRIPT

SECONDS = 20.0


@asynccontextmanager
async def started(
    limits: Limits, name: str = "", secret: bytes | None = None
) -> AsyncIterator[Engine]:
    """An engine that is closed in the end."""
    engine = driver.open_engine(limits, name, secret)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def engine(limits: Limits) -> AsyncIterator[Engine]:
    """A started engine, closed after the test."""
    async with started(limits) as engine:
        yield engine
    assert descendants() == []
    if engine.name == "docker":
        assert containers.of() == []


def descendants() -> list[psutil.Process]:
    """All processes below this one; those that have ended are given a moment to be gone."""
    deadline = time.monotonic() + SECONDS
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.05)
    return left


def descendants_now() -> set[psutil.Process]:
    """All processes below this one that have not ended."""
    return {p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"}


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


async def boot(engine: Engine) -> Sandbox:
    """A sandbox with a guest."""
    sandbox = await engine.sandbox()
    command = JAVASCRIPT.command(engine.limits)
    hello = await sandbox.boot(command, dict(JAVASCRIPT.environment), engine.limits)
    assert hello["version"].startswith("v24.")
    return sandbox


async def run(sandbox: Sandbox, code: str) -> Any:
    """Run a cell and return its result as text, None if there is none."""
    async with asyncio.timeout(SECONDS):
        reply = await sandbox.call(
            "execute", code=code, cell="1", silent=False, user_expressions={}
        )
    assert reply["status"] == "ok", reply
    return reply["result"] and reply["result"]["data"]["text/plain"]


async def restored(engine: Engine, name: str) -> Sandbox:
    """A new sandbox into which a checkpoint was restored."""
    sandbox = await engine.sandbox()
    back = await sandbox.restore(name)
    assert back.hello["language"] == "javascript"
    assert 0 < back.seconds < SECONDS
    return sandbox


# -- guests and their checkpoints --------------------------------------------------------------


async def test_boot_and_call(engine: Engine) -> None:
    sandbox = await boot(engine)
    assert await run(sandbox, "6 * 7") == "42"
    assert (await sandbox.call("complete", code="Math.ma", cursor=7))["matches"] == ["max"]
    assert (await sandbox.call("no such thing"))["status"] == "error"


async def test_events_arrive_before_the_reply(engine: Engine) -> None:
    sandbox = await boot(engine)
    said: list[str] = []
    sandbox.on_event = lambda event: said.append(str(event.get("text")))
    await run(sandbox, "\n".join(f"console.log({i})" for i in range(100)))
    assert "".join(said).split() == [str(i) for i in range(100)]


async def test_restore_beside_the_original(engine: Engine) -> None:
    original = await boot(engine)
    await run(original, "x = 1; require('fs').writeFileSync('f', 'one')")
    dump = await original.dump("one")
    assert 0 < dump.frozen <= dump.seconds < SECONDS
    assert dump.memory > 1 << 20
    assert dump.files >= 3
    await run(original, "x = 2; require('fs').writeFileSync('f', 'two')")
    copy = await restored(engine, "one")
    look = "[x, require('fs').readFileSync('f', 'utf8')]"
    assert await run(copy, look) == "[ 1, 'one' ]"
    assert await run(original, look) == "[ 2, 'two' ]"


async def test_clones_are_independent(engine: Engine) -> None:
    original = await boot(engine)
    await run(original, "x = []")
    await original.dump("empty")
    await original.end()
    clones = await asyncio.gather(*[restored(engine, "empty") for _ in range(3)])
    for number, clone in enumerate(clones):
        await run(clone, f"x.push({number})")
    assert [await run(clone, "x") for clone in clones] == ["[ 0 ]", "[ 1 ]", "[ 2 ]"]


async def test_a_chain_of_dumps_and_restores(engine: Engine) -> None:
    sandbox = await boot(engine)
    await run(sandbox, "n = 0")
    for step in range(4):
        await run(sandbox, "n += 1")
        await sandbox.dump(f"step{step}")
        await sandbox.end()
        sandbox = await restored(engine, f"step{step}")
    assert await run(sandbox, "n") == "4"
    first = await restored(engine, "step0")
    assert await run(first, "n") == "1"


async def test_rested(engine: Engine) -> None:
    sandbox = await boot(engine)
    await run(sandbox, "n = 0")
    for attempt in range(5):  # what Node does by itself comes late where processors are short
        await sandbox.dump(f"calm{attempt}")
        await asyncio.sleep(0.3)
        if await sandbox.rested():
            break
    assert await sandbox.rested()
    await run(sandbox, "timer = setInterval(console.log, 20, 'tick'); 0")
    assert not await sandbox.rested()
    await sandbox.dump("ticking")
    await asyncio.sleep(0.3)
    assert not await sandbox.rested()
    again = await restored(engine, f"calm{attempt}")
    assert await again.rested()


async def test_a_call_of_one_at_rest_does_nothing_to_another(engine: Engine) -> None:
    sandbox = await boot(engine)
    await run(sandbox, "n = 0")
    await sandbox.dump("zero")
    add = {"code": "n += 1", "cell": "1", "silent": False, "user_expressions": {}}
    reply = await sandbox.call("execute", at_rest=True, **add)
    assert reply["status"] == "ok"
    with pytest.raises(Moved):
        await sandbox.call("execute", at_rest=True, **add)
    assert await run(sandbox, "n") == "1"
    await sandbox.dump("one")
    assert await sandbox.rested(), "a call that is not made moves nothing"
    assert (await sandbox.call("execute", at_rest=True, **add))["status"] == "ok"


async def test_what_is_not_in_the_tree_when_nothing_ran(engine: Engine) -> None:
    """A second dump of a guest at rest adds no files."""
    sandbox = await boot(engine)
    await run(sandbox, "require('fs').writeFileSync('f', Buffer.alloc(1 << 20, 1))")
    assert (await sandbox.dump("first")).files >= 1 << 20
    assert (await sandbox.dump("second")).files == 0


# -- refusals ----------------------------------------------------------------------------------


async def test_what_cannot_be_done_is_refused_and_harms_nothing(engine: Engine) -> None:
    sandbox = await boot(engine)
    await run(sandbox, "x = 1")
    await sandbox.dump("good")
    with pytest.raises(EngineError, match="has a guest already"):
        await boot_again(sandbox, engine)
    with pytest.raises(EngineError, match="has a guest already"):
        await sandbox.restore("good")
    for name in ("good", "../up", ".hidden", "a/b", "good/x"):
        with pytest.raises((EngineError, DumpRefused)):
            await sandbox.dump(name)
    assert await run(sandbox, "x") == "1"
    assert await run(await restored(engine, "good"), "x") == "1"


async def boot_again(sandbox: Sandbox, engine: Engine) -> None:
    """Boot in a sandbox whatever it holds."""
    command = JAVASCRIPT.command(engine.limits)
    await sandbox.boot(command, dict(JAVASCRIPT.environment), engine.limits)


@pytest.mark.parametrize("name", ["nowhere", "../runtime", "runtime"])
async def test_restoring_what_is_no_checkpoint(engine: Engine, name: str) -> None:
    sandbox = await engine.sandbox()
    with pytest.raises((RestoreFailed, EngineError)):
        await sandbox.restore(name)
    await sandbox.end()


async def test_a_command_that_is_no_guest(engine: Engine) -> None:
    for command in (["/bin/true"], ["/no/such/program"]):
        sandbox = await engine.sandbox()
        with pytest.raises(SandboxDied, match="did not come up"):
            await sandbox.boot(command, {}, engine.limits)
        await sandbox.end()


@pytest.mark.real("has programs end")
@pytest.mark.parametrize(
    ("command", "how"),
    [
        (["/bin/true"], "exit code 0$"),
        (["/no/such/program"], "exit code 127$"),
        (["/bin/sh", "-c", "kill -9 $$"], "signal 9$"),
    ],
)
async def test_what_became_of_it(engine: Engine, command: list[str], how: str) -> None:
    sandbox = await engine.sandbox()
    with pytest.raises(SandboxDied, match=f"did not come up: it ended at once with {how}"):
        await sandbox.boot(command, {}, engine.limits)


async def test_without_a_guest(engine: Engine) -> None:
    sandbox = await engine.sandbox()
    await sandbox.warm()
    for attempt in (sandbox.call("hello"), sandbox.dump("none"), sandbox.rested()):
        with pytest.raises(SandboxDied):
            await attempt


def test_an_unknown_engine_is_named(limits: Limits) -> None:
    with pytest.raises(EngineError, match="no engine 'abacus'"):
        open_engine("abacus", limits)


# -- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "how"),
    [("process.exit(3)", {"code": 3}), ("process.abort()", {"signal": signal.SIGABRT})],
)
async def test_how_a_guest_ended(engine: Engine, code: str, how: dict[str, int]) -> None:
    sandbox = await boot(engine)
    exits: list[Any] = []
    sandbox.on_exit = exits.append
    with pytest.raises(SandboxDied):
        await run(sandbox, code)
    assert [how.items() <= end.items() for end in exits] == [True]
    assert sandbox.death == exits[0]
    with pytest.raises(SandboxDied):
        await sandbox.dump("dead")


async def test_kill_guest(engine: Engine) -> None:
    sandbox = await boot(engine)
    exits: list[Any] = []
    sandbox.on_exit = exits.append
    spinning = asyncio.ensure_future(run(sandbox, "while (true) {}"))
    await asyncio.sleep(0.1)
    await sandbox.kill_guest()
    with pytest.raises(SandboxDied, match="SIGKILL"):
        await spinning
    await until(lambda: exits)


@pytest.mark.real("it looks at processes")
async def test_end_takes_everything_along_and_only_that(engine: Engine) -> None:
    kept, doomed = await boot(engine), await boot(engine)
    await run(
        doomed,
        "const { spawn } = require('child_process'); for (let i = 0; i < 3; i++) "
        "spawn('sleep', ['1234'], { detached: true, stdio: 'ignore' }).unref()",
    )

    def sleepers() -> list[psutil.Process]:
        return [process for process in nest.children(recursive=True) if process.name() == "sleep"]

    nest = containers.nest_of(engine)
    await until(lambda: len(sleepers()) == 3)
    guest = sleepers()[0].parent()
    assert guest is not None
    supervisor = guest.parent()
    assert supervisor is not None
    assert supervisor.parent() == nest
    family = [supervisor, *supervisor.children(recursive=True)]
    await doomed.end()
    await doomed.end()
    await until(lambda: not any(process.is_running() for process in family))
    with pytest.raises(SandboxDied):
        await doomed.call("hello")
    assert await run(kept, "1") == "1"


@pytest.mark.local_only("a stream that is none has an end")
async def test_a_request_that_cannot_be_read_is_an_error_and_not_the_end(engine: Any) -> None:
    control = engine._control
    engine._nest.connect(lambda _request, _descriptors: control.send(b"{"))
    with pytest.raises(EngineError, match="a request"):
        await engine.status()
    engine._nest.connect(partial(link.send, control))
    assert (await engine.status())["staging used"] >= 0


@pytest.mark.real("it looks at processes")
async def test_many_sandboxes_come_and_go(engine: Engine) -> None:
    async def one(number: int) -> None:
        sandbox = await engine.sandbox()
        if number % 2:
            await sandbox.warm()
        await sandbox.end()

    await asyncio.gather(*[one(number) for number in range(12)])
    assert containers.nest_of(engine).children(recursive=True) == [], "the nest alone"
    assert (await engine.status())["staging used"] < 1 << 20


OWNER = """
import asyncio, sys
from crkernel.engines import Limits, open_engine
from crkernel.javascript import JAVASCRIPT

async def main():
    engine = open_engine(sys.argv[1], Limits(2 << 30, 256, 1 << 30, 1 << 30, 2 << 30))
    await engine.start()
    sandbox = await engine.sandbox()
    command = JAVASCRIPT.command(engine.limits)
    await sandbox.boot(command, dict(JAVASCRIPT.environment), engine.limits)
    spare = await engine.sandbox()
    call = dict(code="require('child_process').spawn('sleep', ['1000']); 0", cell="1")
    await sandbox.call("execute", silent=False, user_expressions={}, **call)
    print("up", flush=True)
    await sandbox.call("execute", code="for (;;) {}", cell="2", silent=False, user_expressions={})

asyncio.run(main())
"""


@pytest.mark.real("it looks at processes")
def test_a_killed_owner_leaves_nothing() -> None:
    name = driver.engine
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), name], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        if name == "docker":
            (container,) = containers.of(owner.pid)
            main = psutil.Process(container.attrs["State"]["Pid"])
            family = [main, *main.children(recursive=True)]
        else:
            family = psutil.Process(owner.pid).children(recursive=True)
        assert len(family) >= 5, "nest, two supervisors, guest, its child"
        owner.kill()
    _, alive = psutil.wait_procs(family, timeout=SECONDS)
    assert alive == []
    if name == "docker":
        deadline = time.monotonic() + SECONDS
        while containers.of(owner.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert containers.of(owner.pid) == []
    mounts = subprocess.run(
        ["cat", "/proc/self/mounts"], capture_output=True, text=True, check=True
    )
    assert "staging" not in mounts.stdout


# -- hostile guests ----------------------------------------------------------------------------

HOSTILE = {
    "garbage as a reply": "fs.writeSync(4, Buffer.from('\\0\\0\\0\\5hello'))",
    "garbage as an event": "fs.writeSync(5, Buffer.from('\\0\\0\\0\\5hello'))",
    "a huge reply announced": "fs.writeSync(4, Buffer.from([255, 255, 255, 255, 1]))",
    "a huge event announced": "fs.writeSync(5, Buffer.from([255, 255, 255, 255, 1]))",
    "bytes that are no text": "fs.writeSync(5, Buffer.from([0, 0, 0, 4, 123, 255, 254, 125]))",
    "a list as a reply": "fs.writeSync(4, Buffer.from('\\0\\0\\0\\2[]'))",
    "a reply without an id": "fs.writeSync(4, Buffer.from('\\0\\0\\0\\2{}'))",
    "an id of a wrong kind": "fs.writeSync(4, Buffer.from('\\0\\0\\0\\u000b{\"id\":[[]]}'))",
    "an endless nest": (
        "fs.writeSync(5, Buffer.concat([Buffer.from([0, 0, 234, 96]), Buffer.alloc(60000, '[')]))"
    ),
    "nothing at all": "fs.closeSync(4); fs.closeSync(5)",
}


@pytest.mark.real("breaks what a supervisor reads")
@pytest.mark.parametrize("attack", HOSTILE)
async def test_a_hostile_guest_harms_itself_alone(engine: Engine, attack: str) -> None:
    good = await boot(engine)
    await run(good, "x = 1")
    await good.dump("good")
    bad = await boot(engine)
    deaths: list[Any] = []
    bad.on_exit = deaths.append
    attempt = asyncio.ensure_future(
        run(bad, f"const fs = require('fs'); {HOSTILE[attack]}; 'it went through'")
    )
    _, waiting = await asyncio.wait([attempt], timeout=3)
    if waiting:  # it has silenced itself: an interrupt or a kill must still work
        attempt.cancel()
    elif attempt.exception() is not None:
        assert isinstance(attempt.exception(), SandboxDied)
        await until(lambda: deaths)
    await bad.kill_guest()
    await until(lambda: deaths)
    await bad.end()
    assert await run(good, "x") == "1"
    copy = await restored(engine, "good")
    assert await run(copy, "x") == "1"


@pytest.mark.real("forges what a supervisor passes on")
async def test_a_guest_cannot_answer_for_its_supervisor(engine: Engine) -> None:
    """A forged end or a forged answer to a dump is an event or a reply of the guest, no more."""
    sandbox = await boot(engine)
    deaths: list[Any] = []
    events: list[Any] = []
    sandbox.on_exit, sandbox.on_event = deaths.append, events.append
    forged = [
        '{"event":"exited","code":0}',
        '{"id":1,"seconds":0,"frozen":0,"memory":0,"files":0}',
        '{"id":2,"error":{"kind":"UserError","message":"forged"}}',
    ]
    for text in forged:
        await run(
            sandbox,
            f"{{ const t = Buffer.from({text!r}); const h = Buffer.alloc(4);"
            " h.writeUInt32BE(t.length);"
            " require('fs').writeSync(5, Buffer.concat([h, t])) }; 0",
        )
    await sandbox.dump("real")
    assert deaths == []
    assert sandbox.death is None
    assert len(events) == len(forged)


@pytest.mark.real("a process floods")
async def test_a_flood_of_output_stops_neither_calls_nor_dumps(engine: Engine) -> None:
    sandbox = await boot(engine)
    size = 0

    def count(event: dict[str, Any]) -> None:
        nonlocal size
        size += len(str(event.get("text", "")))

    sandbox.on_event = count
    await run(
        sandbox,
        "const flood = require('child_process').spawn('sh', ['-c', 'while :; do echo flood; done'],"
        " { stdio: ['ignore', 'inherit', 'inherit'] }); 0",
    )
    await until(lambda: size > 10_000)
    async with asyncio.timeout(SECONDS):
        await sandbox.dump("flooded")
        assert await run(sandbox, "flood.kill('SIGKILL')") == "true"
    copy = await restored(engine, "flooded")
    assert await run(copy, "flood.kill('SIGKILL')") == "true"


def test_this_process_is_clean() -> None:
    """After all of the above nothing of it is left."""
    assert descendants() == []
