"""Shipments whose check sums are right, written by an enemy: refused with a line, or harmless."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from forgery import Part, Shipment

from crkernel.engines import Engine, Limits
from crkernel.errors import CRKernelError
from crkernel.guest.images import Images

from .test_engine import SECONDS, boot, restored, run, started
from .test_memory_files import mapped
from .test_shipping import FILES, LOOK, SEEN, other, pieces, refused, shipped, used  # noqa: F401  fixtures

pytestmark = pytest.mark.real("is about the stream between nests")

Forge = Callable[[Shipment], object]
Refused = Callable[..., Awaitable[CRKernelError]]
MB = 1 << 20
WORK = "work"


@pytest.fixture(scope="module")
def streams() -> dict[str, bytes]:
    """Those that were fetched, since each is forged many times."""
    return {}


@pytest.fixture
async def plain(streams: dict[str, bytes], limits: Limits) -> bytes:
    """A checkpoint with files, and one that is a difference to it."""
    if "plain" not in streams:
        async with started(limits) as engine:
            live = await boot(engine)
            await run(live, FILES)
            await live.dump("a")
            await live.dump("b")
            await engine.thin("b", "a")
            streams["plain"] = await shipped(engine, "a", "b")
    return streams["plain"]


@pytest.fixture
async def big(streams: dict[str, bytes], limits: Limits) -> bytes:
    """A checkpoint with a memory file."""
    if "big" not in streams:
        async with started(limits) as engine:
            await mapped(engine, "a")
            streams["big"] = await shipped(engine, "a")
    return streams["big"]


def tree(change: Callable[[dict[str, object]], object]) -> Forge:
    """Changes the manifest."""

    def forge(shipment: Shipment) -> None:
        part = shipment.one("manifest")
        entries = part.text
        changed = change(entries)
        part.text = entries if changed is None else changed
        shipment.count()

    return forge


def say(kind: str, **fields: object) -> Forge:
    """Changes what is said of the last part of a kind."""
    return lambda shipment: shipment.of(kind)[-1].said.update(fields)


def silent(kind: str, name: str) -> Forge:
    """Leaves something out."""
    return lambda shipment: shipment.of(kind)[-1].said.pop(name)


def noted(**fields: object) -> Forge:
    """Changes the record of a checkpoint."""
    return lambda shipment: shipment.of("checkpoint")[-1].said["record"].update(fields)


def insert(kind: str, part: Part) -> Forge:
    """Puts a part before the first of a kind."""
    return lambda s: s.parts.insert(s.parts.index(s.one(kind)), part)


def again(kind: str) -> Forge:
    """Sends a part twice."""

    def forge(shipment: Shipment) -> None:
        part = shipment.of(kind)[-1]
        shipment.parts.insert(shipment.parts.index(part), part)
        if kind != "header":
            shipment.count()

    return forge


def chain(shipment: Shipment) -> None:
    """Adds a checkpoint that is the difference to one that is a difference itself."""
    first, last = (shipment.parts.index(part) for part in shipment.of("checkpoint"))
    added = copy.deepcopy(shipment.parts[first + 1 : last + 1])
    added[-1].said.update(name="c", base=1)
    shipment.parts[last + 1 : last + 1] = added
    shipment.count()


def entry(path: str, **fields: object) -> Forge:
    """Adds an entry to the manifest, or replaces it."""
    whole = {"mode": 0o600, "mtime": 0, **fields}
    return tree(lambda entries: entries.update({path: whole}))


def altered(path: str, **fields: object) -> Forge:
    """Changes an entry of the manifest."""
    return tree(lambda entries: entries[path].update(fields))  # type: ignore[attr-defined]


def ends(kind: str, size: int, said: int) -> Forge:
    """Has the last file of a kind end elsewhere than after its data."""

    def forge(shipment: Shipment) -> None:
        part = shipment.of(kind)[-1]
        part.size, part.said["size"] = size, said

    return forge


def piece(*found: tuple[int, bytes], size: int) -> Forge:
    """Has other pieces come as the contents of a file."""

    def forge(shipment: Shipment) -> None:
        part = shipment.one("content")
        part.pieces, part.size, part.said["size"] = list(found), size, size
        shipment.count()

    return forge


PAGE = bytes(4096)
LINK = {"kind": "symlink", "target": "/"}
FORGED: dict[str, Forge] = {
    # the header
    "no header": lambda s: s.parts.pop(0),
    "two headers": again("header"),
    "less than comes": say("header", bytes=MB),
    "a negative size": say("header", bytes=-1),
    "a size that is true": say("header", bytes=True),
    "a size as a text": say("header", bytes="1"),
    "no size": silent("header", "bytes"),
    "more than fits": say("header", bytes=1 << 60),
    "another image": say("header", image=["x"]),
    "no machine": say("header", machine=None),
    "a machine of numbers": say("header", machine=[1, 2, 3]),
    "half a machine": say("header", machine=["x"]),
    "a machine of lines": say("header", machine=["x", "a\nb" * 999, ""]),
    "what no processor has": say("header", machine=["x", "x86_64", "y" * 99999]),
    # parts
    "an unknown part": insert("image", Part({"part": "../x"})),
    "a part of a wrong kind": insert("image", Part({"part": ["image"]})),
    "no part": insert("image", Part({})),
    "an end too early": insert("image", Part({"part": "end"})),
    "a long message": insert("image", Part({"part": "x" * 900_000})),
    "an even longer one": insert("image", Part({"part": "x" * (1 << 20)})),
    "nothing but an end": lambda s: s.parts.__setitem__(slice(1, -1), []),
    "images without a checkpoint": lambda s: s.parts.remove(s.of("checkpoint")[-1]),
    "golden memory of nobody": insert(
        "content", Part({"part": "golden", "path": "/golden/a/b", "digest": "0" * 64})
    ),
    "golden memory of a wrong kind": insert(
        "content", Part({"part": "golden", "path": "/golden/a/b", "digest": {}})
    ),
    # images
    "an image above": say("image", name="../up.img"),
    "an image elsewhere": say("image", name="/tmp/x.img"),
    "an image in a folder": say("image", name="a/b.img"),
    "a hidden image": say("image", name=".img"),
    "no image": say("image", name="crkernel.json"),
    "a number for an image": say("image", name=7),
    "a long name of an image": say("image", name="x" * 300 + ".img"),
    "an image with a line": say("image", name="a\n.img"),
    "an image twice": again("image"),
    "an image with a hole": lambda s: vars(s.one("image", name="files.img")).update(
        said={"part": "image", "name": "files.img", "size": 1 << 40}, size=1 << 40
    ),
    "pages with a hole": ends("image", 1 << 40, 1 << 40),
    "an image that is none": lambda s: setattr(s.one("image", name="files.img"), "data", b"x" * 99),
    "no list of files": lambda s: s.parts.remove(s.one("image", name="files.img")),
    # files
    "a size that is not its own": ends("image", 1, 1 << 20),
    "a size beyond": ends("image", 1 << 50, 1 << 20),
    "a negative file": say("content", size=-1),
    "half a byte": say("content", size=0.5),
    "a file without an end": say("content", size=1 << 63),
    "pieces that overlap": piece((0, PAGE), (0, PAGE), size=8192),
    "pieces in falling order": piece((4096, PAGE), (0, PAGE), size=8192),
    "a piece past the end": piece((0, PAGE), (8192, PAGE), size=8192),
    "crumbs that take a page each": piece(
        *((at, b"x") for at in range(0, 1 << 20, 4096)), size=1 << 20
    ),
    "a manifest without an end": say("manifest", size=1 << 40),
    # the tree
    "a tree of a wrong kind": tree(lambda _: []),
    "an endless tree": lambda s: setattr(s.one("manifest"), "data", b"[" * 99999),
    "no tree": lambda s: setattr(s.one("manifest"), "data", b"\0" * 9),
    "a tree without a root": tree(lambda entries: entries.pop("")),
    "a root that is a link": tree(lambda entries: entries[""].update(LINK)),  # type: ignore[attr-defined]
    "a path above": entry(f"{WORK}/../../../x", **LINK),
    "the path above": entry("..", kind="directory"),
    "an absolute path": entry("/etc", kind="directory"),
    "a path with a gap": entry(f"{WORK}//x", **LINK),
    "a path that ends in a slash": entry(f"{WORK}/x/", kind="directory"),
    "a path with a zero": entry(f"{WORK}/x\0y", **LINK),
    "a path with half a letter": entry(f"{WORK}/\ud800", **LINK),
    "a path through a link": entry(f"{WORK}/deep/soft/x", **LINK),
    "a path through a file": entry(f"{WORK}/deep/er/f/x", **LINK),
    "a path in nothing": entry(f"{WORK}/nothing/x", **LINK),
    "a link instead of a folder": altered(f"{WORK}/deep", **LINK),
    "a link to a zero": entry(f"{WORK}/x", kind="symlink", target="a\0b"),
    "a link of a wrong kind": entry(f"{WORK}/x", kind="symlink", target=7),
    "a hard link outside": entry(f"{WORK}/x", kind="hardlink", target="../../etc/passwd"),
    "a hard link to a folder": entry(f"{WORK}/x", kind="hardlink", target=WORK),
    "a hard link to a link": entry(f"{WORK}/x", kind="hardlink", target=f"{WORK}/deep/soft"),
    "a hard link of a wrong kind": entry(f"{WORK}/x", kind="hardlink", target=[]),
    "a device": entry(f"{WORK}/x", kind="device", device=1),
    "an entry of a wrong kind": tree(lambda entries: entries.update({f"{WORK}/x": 7})),
    "a name of a content": entry(f"{WORK}/x", kind="file", content="c1.0", attributes={}),
    "a content of nobody": entry(f"{WORK}/x", kind="file", content=10**6, attributes={}),
    "a content before the first": entry(f"{WORK}/x", kind="file", content=-1, attributes={}),
    "a mode too many": altered("tmp/sparse", mode=1 << 20),
    "a mode as a text": altered("tmp/sparse", mode="rwx"),
    "a time without an end": altered("tmp/sparse", mtime=1 << 80),
    "a time of a wrong kind": altered("tmp/sparse", mtime=1e300),
    "a power of a file": altered("tmp/sparse", attributes={"security.capability": "00"}),
    "attributes of a wrong kind": altered("tmp/sparse", attributes=[1]),
    "attributes that are no bytes": altered("tmp/sparse", attributes={"user.x": "zz"}),
    "a long complaint": entry("x/" * 99999, **LINK),
    # checkpoints
    "a parent to come": say("checkpoint", base=1),
    "a parent of nobody": say("checkpoint", base=99),
    "a parent before the first": say("checkpoint", base=-1),
    "a parent by its name": say("checkpoint", base="a"),
    "a parent that is a difference": chain,
    "files of nobody": say("checkpoint", files=5),
    "no files": say("checkpoint", files=None),
    "memory of nobody": say("checkpoint", memory=["/memory/c1"]),
    "memory outside": say("checkpoint", memory=["/etc/passwd"]),
    "memory of a wrong kind": say("checkpoint", memory=7),
    "a name for two": say("checkpoint", name="a"),
    "a name with a zero": say("checkpoint", name="a\0"),
    "a name without an end": say("checkpoint", name="x" * 500_000),
    "a name of a wrong kind": say("checkpoint", name={"a": 1}),
    "no name": silent("checkpoint", "name"),
    "a record of a wrong kind": say("checkpoint", record=[]),
    "an empty record": say("checkpoint", record={}),
    "a process id too high": noted(last_pid=1 << 40),
    "a clock that runs backwards": noted(monotonic=[-1, 0]),
    "a clock without an end": noted(monotonic=[1 << 70, 0]),
    "half a clock": noted(monotonic=[1]),
    "pipes of a wrong kind": noted(pipes=[1, 2]),
    "leftovers that are no bytes": noted(leftovers={"4": "zz"}),
    "no hello": noted(hello=None),
}


async def refusals(stream: bytes, forged: dict[str, Forge], refused: Refused) -> dict[str, str]:  # noqa: F811
    """What each forgery is answered with."""
    answers = {}
    for what, forge in forged.items():
        shipment = Shipment.read(stream)
        forge(shipment)
        try:
            answers[what] = f"{type(error := await refused(shipment.stream())).__name__}: {error}"
        except (AssertionError, TimeoutError, pytest.fail.Exception) as failure:
            answers[what] = f"not refused: {failure!r}"
    return answers


async def test_a_forged_shipment_is_refused_with_a_line(plain: bytes, refused: Refused) -> None:  # noqa: F811
    answers = await refusals(plain, FORGED, refused)
    right = re.compile("(Corrupt|FormatVersion|NoSpace|EngineError): (?!.*want of memory)")
    assert {what: told for what, told in answers.items() if not right.match(told)} == {}


MEMORY: dict[str, Forge] = {
    "outside": say("memory", path="/etc/passwd"),
    "above": say("memory", path="../memory/x"),
    "of a wrong kind": say("memory", path=7),
    "twice": again("memory"),
    "that images do not name": say("memory", path="/memory/other"),
    "without an end": say("memory", size=1 << 61),
    "that nobody sent": lambda s: s.parts.remove(s.one("memory")),
    "that its checkpoint does not need": say("checkpoint", memory=[]),
}


async def test_forged_memory_files(big: bytes, refused: Refused) -> None:  # noqa: F811
    answers = await refusals(big, MEMORY, refused)
    assert {what: told for what, told in answers.items() if not told.startswith("Corrupt")} == {}


async def test_what_is_put_together_again_is_the_same(
    plain: bytes,
    big: bytes,
    other: Engine,  # noqa: F811
) -> None:
    """Else all of the above would be refused for no merit of its own."""
    for stream, look, seen in ((plain, LOOK, SEEN), (big, "heap[63][9]", "63")):
        assert Shipment.read(stream).stream() == stream
        names = await other.push(pieces(stream))
        copy = await restored(other, names["a"])
        assert await run(copy, look) == seen
        await copy.end()


async def test_groups_of_another_host_stay_there(
    plain: bytes,
    other: Engine,  # noqa: F811
    tmp_path: Path,
) -> None:
    """CRIU would wait for ever for a guest that may not have them here."""
    shipment, images = Shipment.read(plain), Images(str(tmp_path), str(tmp_path))
    cores = [part for part in shipment.of("image") if part.said["name"].startswith("core-")]
    for part in cores:
        (tmp_path / part.said["name"]).write_bytes(part.data)
        entries = images.load(part.said["name"])
        for entry in entries:
            entry["thread"]["credentials"]["groups"] = [27, 65534]
        images.save(part.said["name"], entries)
        part.data = (tmp_path / part.said["name"]).read_bytes()
    shipment.count()
    names = await other.push(pieces(shipment.stream()))
    for name in names.values():
        assert await run(await restored(other, name), LOOK) == SEEN


HARMLESS: dict[str, Forge] = {
    "a link to anywhere": entry(f"{WORK}/x", kind="symlink", target="../../../../etc/passwd"),
    "a file of holes": piece(size=1 << 42),
    "a clock far ahead": noted(monotonic=[1 << 61, 0]),
    "pipes without names": noted(pipes={"x" * 999: 1}),
    "pipes that are not there": noted(pipes={}),
    "leftovers of nobody": noted(leftovers={"x": "00"}),
    "images of nothing": lambda s: [
        setattr(image, "data", b"") for image in s.of("image") if image.said["name"] != "files.img"
    ],
    "a hello of lies": noted(hello={"worker_tid": -1, "pid": "x"}),
}


async def test_what_is_taken_harms_its_sandbox_alone(plain: bytes, other: Engine) -> None:  # noqa: F811
    """What cannot be judged before it is restored."""
    good = await boot(other)
    await run(good, "x = 1")
    await good.dump("good")
    before = await used(other)
    for forge in HARMLESS.values():
        shipment = Shipment.read(plain)
        forge(shipment)
        names = await other.push(pieces(shipment.stream()))
        for name in names.values():
            sandbox = await other.sandbox()
            with contextlib.suppress(CRKernelError):  # whatever CRIU thinks of it
                async with asyncio.timeout(SECONDS):
                    await sandbox.restore(name)
            await sandbox.end()
        await other.drop(list(names.values()))
    assert await run(good, "x") == "1"
    assert await run(await restored(other, "good"), "x") == "1"
    assert await used(other) < before + 20 * MB
