"""Checkpoints whose memory moved into memory files are the same checkpoints."""

from __future__ import annotations

import os
import subprocess
import textwrap
from dataclasses import replace

import containers
import pytest

from crkernel.engines import Engine, Limits, Sandbox
from crkernel.errors import EngineError, RestoreFailed

from .test_engine import boot, engine, restored, run, started  # noqa: F401  a fixture among them

pytestmark = pytest.mark.real("is about memory files")

MB = 1 << 20
HEAP = "globalThis.heap = Array.from({ length: 64 }, (_, i) => new Float64Array(131072).fill(i)); 0"
HEAPS = {
    "arrays": "Array.from({ length: 96 }, (_, i) => new Float64Array(131072).fill(i + 0.5))",
    "objects": "Array.from({ length: 400000 }, (_, i) => ({ a: i, b: 's' + i, c: [i] }))",
    "strings": "Array.from({ length: 800 }, (_, i) => ('x' + i).repeat(30000))",
    "buffers": "Array.from({ length: 1600 }, (_, i) => Buffer.alloc(65536, i))",
}
BIG = "Array.from({ length: 320 }, (_, i) => new Float64Array(131072).fill(i + 0.5))"
SPARSE = """Array.from({ length: 192 }, () => {
    const pages = new Uint8Array(1048576);
    for (let i = 0; i < pages.length; i += 8192) pages[i] = 1;
    return pages;
})"""
"""96 MB in runs of one page."""
DIGEST = """{
    const hash = require("crypto").createHash("sha256");
    for (const x of heap) hash.update(ArrayBuffer.isView(x) ? x : JSON.stringify(x) ?? "-");
    hash.digest("hex")
}"""


async def rebased(engine: Engine, heap: str, name: str = "a") -> Sandbox:  # noqa: F811
    """A guest that lives on, after a checkpoint whose memory is in a memory file."""
    live = await boot(engine)
    await run(live, heap)
    await live.dump(name)
    await engine.rebase(name, None)
    return live


async def mapped(engine: Engine, name: str) -> Sandbox:  # noqa: F811
    """A guest with 64 MB in the memory file of a checkpoint."""
    await (await rebased(engine, HEAP, name)).end()
    return await restored(engine, name)


@pytest.mark.parametrize("kind", HEAPS)
async def test_a_rebased_checkpoint_is_mapped_and_whole(
    engine: Engine,  # noqa: F811
    kind: str,
) -> None:
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS[kind]}; 0")
    digest = await run(live, DIGEST)
    plain = await live.dump("big")
    before, after = await engine.rebase("big", None)
    assert before > 20 * MB
    assert after < before / 8
    twin = await restored(engine, "big")
    assert (await twin.dump("next")).memory < plain.memory / 8
    assert await run(twin, DIGEST) == digest
    assert await run(live, DIGEST) == digest  # who runs on is untouched
    again = await restored(engine, "next")
    assert await run(again, DIGEST) == digest
    assert await run(again, "heap[0] = heap.length; heap.slice(0, 2).length") == "2"


async def test_what_was_written_since_moves_on(engine: Engine) -> None:  # noqa: F811
    await rebased(engine, f"globalThis.heap = {HEAPS['buffers']}; 0")
    twin = await restored(engine, "a")
    await run(
        twin, "for (const x of heap.slice(0, 800)) x.fill(7); heap.push(Buffer.alloc(9e6, 8)); 0"
    )
    digest = await run(twin, DIGEST)
    written = await twin.dump("b")
    assert 50 * MB < written.memory < 80 * MB  # not what was not written
    before, after = await engine.rebase("b", "a")
    assert after < before / 8
    for name in ("b", "a"):
        sandbox = await restored(engine, name)
        same = await run(sandbox, DIGEST) == digest
        assert same is (name == "b")


async def test_what_is_as_it_was_needs_no_room() -> None:
    async with started(replace(Limits.default(), staging_size=280 * MB)) as small:
        live = await rebased(small, f"globalThis.heap = {HEAPS['arrays']}; 0")
        digest = await run(live, DIGEST)
        await live.dump("b")  # of a guest that is not mapped: as big as the first
        before, after = await small.rebase("b", "a")
        assert after < before / 8
        assert await run(await restored(small, "b"), DIGEST) == digest


async def test_a_file_of_which_little_is_shown_is_left(engine: Engine) -> None:  # noqa: F811
    guest = await boot(engine)
    await run(guest, f"globalThis.heap = {HEAPS['buffers']}; 0")
    for cycle in range(6):  # each leaves one more sixth as it was
        await run(guest, f"for (const x of heap.slice({cycle} * 1600 / 6)) x.fill({cycle} + 1); 0")
        digest = await run(guest, DIGEST)
        await guest.dump(f"c{cycle}")
        await engine.rebase(f"c{cycle}", None)
        await guest.end()
        guest = await restored(engine, f"c{cycle}")
        assert await run(guest, DIGEST) == digest
        if cycle:
            await engine.drop([f"c{cycle - 1}"])
    _, own, shared, _ = (await engine.costs(["c5"]))["c5"]
    assert own + shared < 330 * MB  # of 120 that it has; 400 if nothing was left


async def test_a_guest_that_was_not_replaced_shares_its_parents_file(
    engine: Engine,  # noqa: F811
) -> None:
    live = await rebased(engine, f"globalThis.heap = {HEAPS['arrays']}; 0")
    used = (await engine.status())["staging used"]
    await run(live, "heap[3][5] = -1; heap[50].fill(0); 0")
    digest = await run(live, DIGEST)
    await live.dump("b")
    await engine.rebase("b", "a")
    assert (await engine.status())["staging used"] < used + 32 * MB  # not all of it again
    assert await run(await restored(engine, "b"), DIGEST) == digest


async def test_small_checkpoints_after_a_rebased_one_are_thinned(
    engine: Engine,  # noqa: F811
) -> None:
    await rebased(engine, f"globalThis.heap = {HEAPS['arrays']}; 0")
    twin = await restored(engine, "a")
    for step in range(3):
        await run(twin, f"heap[{step}][0] = 99; 0")
        await twin.dump(f"b{step}")
        before, after = await engine.thin(f"b{step}", "a")
        assert after <= before
        again = await restored(engine, f"b{step}")
        assert await run(again, f"heap[{step}][0] + heap[{step + 1}][0]") == str(99 + step + 1.5)
        await again.end()


async def test_children_of_the_same_program_are_rebased_others_left_alone(
    engine: Engine,  # noqa: F811
) -> None:
    live = await boot(engine)
    await run(
        live,
        """globalThis.child = require("child_process").fork("/dev/stdin", [], {
            execArgv: ["-e", `const heap = new Uint8Array(60e6).fill(5);
                process.on("message", (i) => process.send(heap[i]));
                process.send("ready");`] });
        globalThis.ask = (i) => new Promise((resolve) => {
            child.once("message", resolve); if (i !== undefined) child.send(i); });
        globalThis.other = require("child_process").spawn("python3", ["-c",
            "b = bytearray(b'x' * 50000000)\\nwhile True: print(b[int(input())], flush=True)"]);
        globalThis.question = (i) => new Promise((resolve) => {
            other.stdout.once("data", (data) => resolve(String(data).trim()));
            other.stdin.write(i + "\\n"); });
        [await ask(), await question(7)]""",
    )
    await live.dump("two")
    before, after = await engine.rebase("two", None)
    assert before > 110 * MB
    assert 50 * MB < after < 70 * MB  # Python's memory stays in the images
    twin = await restored(engine, "two")
    assert await run(twin, "[await ask(59999999), await question(49999999)]") == "[ 5, '120' ]"


async def test_a_lost_memory_file_is_noticed(engine: Engine) -> None:  # noqa: F811
    live = await rebased(engine, f"globalThis.heap = {HEAPS['arrays']}; 0")
    inside(engine, "cp /memory/a /memory/b; mv -f /memory/b /memory/a")
    with pytest.raises(RestoreFailed, match="memory file"):
        await restored(engine, "a")
    inside(engine, "rm /memory/a")
    with pytest.raises(RestoreFailed, match="memory file"):
        await restored(engine, "a")
    assert await run(live, "heap[3][0]") == "3.5"


async def test_a_lost_image_that_was_a_memory_file_is_noticed(engine: Engine) -> None:  # noqa: F811
    live = await rebased(engine, f"globalThis.heap = {BIG}; 0")
    inside(engine, "printf x | dd of=$(ls /memory/images/a.*) seek=9999 conv=notrunc status=none")
    with pytest.raises(RestoreFailed, match=r"memory file images/a\.pages-1\.img is another"):
        await restored(engine, "a")
    assert await run(live, "heap[3][0]") == "3.5"


async def test_a_long_run_of_pages_stays_where_it_was_dumped(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, f"globalThis.heap = {BIG}; 0")
    digest = await run(live, DIGEST)
    await live.dump("a")
    dumped = (await engine.status())["staging used"]
    await engine.rebase("a", None)
    assert (await engine.status())["staging used"] < dumped + 32 * MB  # what an idle guest has
    assert await run(await restored(engine, "a"), DIGEST) == digest


def script(running: Engine, text: str) -> None:
    """Run some Python where the nest runs."""
    inside(running, f"exec python3 - <<'END'\n{textwrap.dedent(text)}\nEND")


def inside(running: Engine, command: str) -> None:
    """Run a command where the nest runs."""
    nest = str(containers.nest_of(running).pid)
    # An ordinary user is root in there already; root, whose nests have another user id, is not.
    become = ["-S", "0", "-G", "0"] if os.geteuid() == 0 else ["--preserve-credentials"]
    enter = ["nsenter", "-t", nest, "-U", "-m", *become]
    subprocess.run([*enter, "/bin/sh", "-c", command], check=True)


async def test_guests_reach_no_memory_files(engine: Engine) -> None:  # noqa: F811
    live = await rebased(engine, f"globalThis.heap = {HEAPS['arrays']}; 0")
    for attempt in (
        "readFileSync('/memory/a')",
        "readdirSync('/memory')",
        "chmodSync('/memory', 0o777)",
        "writeFileSync('/memory/a', '')",
        "unlinkSync('/memory/a')",
        "readdirSync('/memory/images')",
        "readFileSync('/memory/images/a.pages-1.img')",
        "writeFileSync('/memory/images/a.pages-1.img', '')",
        "chmodSync('/memory/a', 0o666)",
        "truncateSync('/memory/a')",
    ):
        code = f"try {{ require('fs').{attempt}; 'done' }} catch (error) {{ error.code }}"
        assert await run(live, code) in ("'EROFS'", "'EACCES'")


async def test_without_room_a_checkpoint_stays_as_it_is() -> None:
    async with started(replace(Limits.default(), staging_size=160 * MB)) as small:
        live = await boot(small)
        await run(live, f"globalThis.heap = {SPARSE}; 0")
        digest = await run(live, DIGEST)
        await live.dump("a")
        with pytest.raises(EngineError, match="room"):
            await small.rebase("a", None)
        assert await run(await restored(small, "a"), DIGEST) == digest


async def test_one_budget(engine: Engine) -> None:  # noqa: F811
    size = (await engine.status())["staging size"]
    await rebased(engine, f"globalThis.heap = {HEAPS['arrays']}; 0")
    status = await engine.status()
    assert status["staging size"] == size
    assert 96 * MB < status["staging used"] < 160 * MB
