"""What is damaged is never restored, and what is damaged so that nobody can see it is found."""

from __future__ import annotations

import asyncio
import textwrap

import pytest

from crkernel.engines import Engine
from crkernel.errors import DumpRefused, EngineError, RestoreFailed

from .test_engine import boot, engine, restored, run  # noqa: F401  a fixture among them
from .test_memory_files import BIG, HEAP, inside, mapped, rebased

pytestmark = pytest.mark.real("looks into CRIU's images")

FLIP = """
    import os
    status, file = os.stat(PATH), open(PATH, "r+b")
    file.seek(os.lseek(file.fileno(), status.st_size * 3 // 7, os.SEEK_DATA))
    byte = file.read(1)[0]
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte ^ 1]))
    file.close()
    os.utime(PATH, ns=(status.st_atime_ns, status.st_mtime_ns))
"""
HEAD = """
    import os
    status, file = os.stat(PATH), open(PATH, "r+b")
    byte = file.read(1)[0]
    file.seek(0)
    file.write(bytes([byte ^ 1]))
    file.close()
    os.utime(PATH, ns=(status.st_atime_ns, status.st_mtime_ns))
"""
DIGIT = """
    import re
    text = open(PATH).read()
    place = re.search("[1-8]", text).start()
    open(PATH, "w").write(text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1:])
"""
"""What was a number is another one."""
CUT = "import os; os.truncate(PATH, os.stat(PATH).st_size - 100)"
REPLACE = "import os; assert not os.system('cp -p {0} {0}x && mv {0}x {0}'.format(PATH))"
DELETE = "import os; os.unlink(PATH)"
UNSEEN = """
    import glob, json, os, zlib
    for path in glob.glob("/run/staging/*/crkernel.json"):
        record, folder = json.loads(open(path).readline()), os.path.dirname(path)
        for kind, where in (("images", folder), ("memory", "/memory")):
            for name in record[kind]:
                status = os.stat(f"{where}/{name}")
                record[kind][name] = [status.st_size, status.st_ino, status.st_ctime_ns]
        text = json.dumps(record)
        open(path, "w").write(f"{text}\\n{zlib.crc32(text.encode()):08x}\\n")
"""
"""Makes the fingerprints fit, as if memory itself had failed."""


def damage(engine: Engine, how: str, path: str) -> None:  # noqa: F811
    """Run a script where the nest runs."""
    script = textwrap.dedent(how).strip().replace("PATH", repr(path)).replace('"', '\\"')
    inside(engine, f'exec python3 -c "{script}"')


@pytest.mark.parametrize(
    "how", [FLIP, HEAD, CUT, REPLACE, DELETE], ids=["flip", "head", "cut", "other", "none"]
)
@pytest.mark.parametrize("file", ["/memory/a", "pages-1.img", "core-5000.img"])
async def test_what_is_damaged_is_not_restored(
    engine: Engine,  # noqa: F811
    file: str,
    how: str,
) -> None:
    twin = await mapped(engine, "a")
    damage(engine, how, file if file[0] == "/" else f"/run/staging/a/{file}")
    with pytest.raises(RestoreFailed, match=r"memory file|image"):
        await restored(engine, "a")
    if file[0] == "/":  # and who lives on it takes no checkpoint that says it was well
        with pytest.raises(DumpRefused, match=r"memory file|/memory/a|mapped"):
            await twin.dump("b")


@pytest.mark.parametrize(
    ("file", "how"),
    [
        *((file, how) for file in ("/memory/a.seal", "a/images.seal") for how in (HEAD, CUT)),
        *(("a/crkernel.json", how) for how in (HEAD, CUT, DIGIT)),
    ],
    ids=["memory-head", "memory-cut", "images-head", "images-cut", "head", "cut", "digit"],
)
async def test_what_says_how_it_was_may_be_damaged(
    engine: Engine,  # noqa: F811
    file: str,
    how: str,
) -> None:
    live = await boot(engine)
    await live.dump("root")
    twin = await mapped(engine, "a")
    await engine.verify("/memory/a")
    damage(engine, how, file if file[0] == "/" else f"/run/staging/{file}")
    with pytest.raises(RestoreFailed):
        await restored(engine, "a")
    assert await run(twin, "heap[5][5]") == "5"
    await restored(engine, "root")  # all else goes on
    await live.dump("b")
    assert await engine.drop(["b"]) > 0


async def test_memory_files_that_changed_places_are_not_restored(
    engine: Engine,  # noqa: F811
) -> None:
    twin = await mapped(engine, "a")
    await run(twin, "for (const x of heap) x.fill(7); 0")
    await twin.dump("b")
    await engine.rebase("b", None)
    inside(engine, "cd /memory && truncate -r a b && mv a o && mv b a && mv o b")
    for name in ("a", "b"):
        with pytest.raises(RestoreFailed, match=r"the memory file . is another"):
            await restored(engine, name)


async def test_a_memory_file_that_changes_after_it_was_looked_at(
    engine: Engine,  # noqa: F811
) -> None:
    """What has been got ready is looked at again when it comes up."""
    await mapped(engine, "a")
    sandbox = await engine.sandbox()
    await sandbox.prepare("a")
    damage(engine, FLIP, "/memory/a")
    with pytest.raises(RestoreFailed, match="memory file"):
        await sandbox.restore("a")


async def test_a_difference_to_a_damaged_base_is_not_restored(
    engine: Engine,  # noqa: F811
) -> None:
    live = await boot(engine)
    await live.dump("base")
    await run(live, "globalThis.x = 1")
    await live.dump("a")
    before, after = await engine.thin("a", "base")
    assert after < before
    damage(engine, FLIP, "/run/staging/base/pages-1.img")
    with pytest.raises(RestoreFailed, match=r"image"):
        await restored(engine, "a")


@pytest.mark.parametrize("file", ["/memory/a", "/run/staging/b/core-5000.img"])
async def test_what_is_damaged_gets_no_other_form(
    engine: Engine,  # noqa: F811
    file: str,
) -> None:
    """Its fingerprint would be made anew."""
    twin = await mapped(engine, "a")
    await run(twin, "for (const x of heap.slice(32)) x.fill(7); 0")
    await twin.dump("b")
    damage(engine, FLIP, file)
    with pytest.raises(EngineError, match="checkpoint b is damaged: "):
        await engine.rebase("b", None)
    with pytest.raises(EngineError, match="checkpoint b is damaged: "):
        await engine.keep_golden("b", "none")
    with pytest.raises(RestoreFailed, match=r"memory file|image"):
        await restored(engine, "b")


async def test_nothing_is_shared_with_what_is_damaged(engine: Engine) -> None:  # noqa: F811
    live = await rebased(engine, HEAP)
    await run(live, "globalThis.x = 1")
    await live.dump("b")
    damage(engine, FLIP, "/memory/a")
    with pytest.raises(EngineError, match="checkpoint a is damaged: "):
        await engine.rebase("b", "a")
    assert await run(await restored(engine, "b"), "heap[63][9]") == "63"


async def test_nothing_becomes_a_difference_to_what_is_damaged(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    for name in ("base", "a"):
        await run(live, "globalThis.x = 1")
        await live.dump(name)
    damage(engine, FLIP, "/run/staging/base/pages-1.img")
    with pytest.raises(EngineError, match="checkpoint base is damaged: "):
        await engine.thin("a", "base")
    assert await run(await restored(engine, "a"), "x") == "1"


async def test_what_a_difference_needs_is_read_through(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("base")
    await run(live, "globalThis.x = 1")
    await live.dump("a")
    await engine.thin("a", "base")
    assert await engine.verify("a") == (None, ["base"], [])
    assert await engine.verify("base") == (None, [], ["a"])  # writes its sums down
    damage(engine, FLIP, "/run/staging/base/pages-1.img")
    damage(engine, UNSEEN, "/run/staging/base/pages-1.img")
    found, _, needed_by = await engine.verify("base")
    assert found is not None
    assert "other contents" in found
    assert needed_by == ["a"]


async def test_the_base_of_a_difference_is_no_other_one(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await live.dump("a")
    await run(live, "globalThis.x = 1")
    await live.dump("b")
    await engine.thin("b", "a")
    await run(live, "globalThis.x = 2")
    await live.dump("c")
    assert await run(await restored(engine, "b"), "x") == "1"
    inside(engine, "cd /run/staging && mv a o && mv c a && mv o c")  # each is whole
    await restored(engine, "a")
    with pytest.raises(RestoreFailed, match="image"):
        await restored(engine, "b")
    inside(engine, "cd /run/staging && mv a o && mv c a && mv o c")
    assert await run(await restored(engine, "b"), "x") == "1"


async def test_no_checkpoint_is_taken_of_what_runs_on_a_damaged_file(
    engine: Engine,  # noqa: F811
) -> None:
    twin = await mapped(engine, "a")
    await twin.dump("b", ["/memory/another"])
    with pytest.raises(DumpRefused, match="/memory/a, on which the guest runs, is damaged"):
        await twin.dump("c", ["/memory/a"])
    await run(twin, "heap = 0")
    assert await run(await restored(engine, "b"), "heap[5][5]") == "5"


async def test_reading_through_finds_what_cannot_be_seen(engine: Engine) -> None:  # noqa: F811
    await mapped(engine, "a")
    for _ in range(2):  # the first time writes down the sums of the memory file
        assert await engine.verify("a") == (None, ["/memory/a"], [])
        assert await engine.verify("/memory/a") == (None, [], ["a"])
    for file, path in (("/memory/a", "/memory/a"), ("a", "/run/staging/a/pages-1.img")):
        damage(engine, FLIP, path)
        damage(engine, UNSEEN, path)
        found, _, _ = await engine.verify(file)
        assert found is not None
        assert "other contents" in found
        damage(engine, FLIP, path)
        damage(engine, UNSEEN, path)
        assert (await engine.verify(file))[0] is None


@pytest.mark.parametrize("sealed", ["when made small", "when first read"])
async def test_contents_of_files_are_read_through(
    engine: Engine,  # noqa: F811
    sealed: str,
) -> None:
    live = await boot(engine)
    await live.dump("base")
    await run(live, "require('fs').writeFileSync('/tmp/f', Buffer.alloc(300000, 7))")
    await live.dump("a")
    await run(live, "require('fs').writeFileSync('/tmp/g', '')")
    await live.dump("b")
    if sealed == "when made small":
        await engine.thin("a", "base")
    else:
        assert await engine.verify("b") == (None, [], [])
    find = "import glob\n    (found,) = [p for p in glob.glob('/run/staging/a.*')"
    find += " if os.path.getsize(p) == 300000]"
    damage(engine, FLIP.replace("import os", f"import os\n    {find}").replace("PATH", "found"), "")
    found, _, needed_by = await engine.verify("b")
    assert found is not None
    assert "other contents" in found
    assert sorted(needed_by) == ["a", "b"]  # not "base", which has no such file
    await engine.drop(["a"])  # brought it, with its sum
    assert (await engine.verify("b"))[0] == found
    assert (await engine.verify("base"))[0] is None


async def test_a_restore_looks_at_a_sample(engine: Engine) -> None:  # noqa: F811
    await mapped(engine, "a")
    await engine.verify("/memory/a")
    zero = "import os; s = os.stat(PATH); os.truncate(PATH, 0); os.truncate(PATH, s.st_size)"
    for path in ("/memory/a", "/run/staging/a/pages-1.img"):
        damage(engine, zero, path)
        damage(engine, UNSEEN, path)
        with pytest.raises(RestoreFailed, match="other contents"):
            await restored(engine, "a")


async def test_a_checkpoint_is_read_while_the_guest_works(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, f"globalThis.heap = {BIG}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    twin = await restored(engine, "a")
    reading = asyncio.create_task(engine.verify("/memory/images/a.pages-1.img"))
    assert await run(twin, "heap[5][5]") == "5.5"
    assert not reading.done()
    assert (await reading)[0] is None
