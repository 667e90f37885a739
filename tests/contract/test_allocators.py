"""Allocators with their own ways: what they gave back they take for zeros."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from crkernel.engines import Engine, Limits, Sandbox

from .test_engine import boot, engine, restored, run, started  # noqa: F401  a fixture among them
from .test_mapped_guests import mapped

pytestmark = pytest.mark.real("is about memory files")

ALLOCATING = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <mimalloc.h>
#define calloc mi_calloc
#define realloc mi_realloc
#define free mi_free
typedef void *handle;
int napi_create_function(handle, const char *, unsigned long, handle (*)(handle, handle),
                         void *, handle *);
int napi_create_double(handle, double, handle *);
enum { SLOTS = 120 };
static unsigned char *slots[SLOTS]; static unsigned long sizes[SLOTS], seed = 7, dirty, lost;
static unsigned long chance(unsigned long below) {
    seed = seed * 6364136223846793005ul + 1442695040888963407ul; return (seed >> 33) % below;
}
static void check(int i) {
    for (unsigned long at = 0; at < sizes[i]; at++) lost += slots[i][at] != (unsigned char)(i + 1);
}
static handle number(handle env, double value) {
    handle result; napi_create_double(env, value, &result); return result;
}
/* give back and take again: whatever comes from calloc must read as zeros */
static handle step(handle env, handle info) {
    for (int round = 0; round < 150; round++) {
        int i = chance(SLOTS); unsigned long size = 1000 + chance(round % 5 ? 60000 : 2000000);
        if (slots[i]) check(i);
        if (slots[i] && chance(3) == 0) {
            slots[i] = realloc(slots[i], size);
            if (sizes[i] > size) sizes[i] = size;
            check(i);
        } else {
            free(slots[i]);
            slots[i] = calloc(1, size);
            for (unsigned long at = 0; at < size; at++) dirty += slots[i][at] != 0;
        }
        memset(slots[i], i + 1, size); sizes[i] = size;
    }
    return number(env, dirty * 1e9 + lost);
}
static handle digest(handle env, handle info) {
    unsigned long sum = 0;
    for (int i = 0; i < SLOTS; i++)
        for (unsigned long at = 0; slots[i] && at < sizes[i]; at++) sum = sum * 31 + slots[i][at];
    return number(env, sum >> 12);
}
/* a child without exec shares what is mapped, and what it writes is its own */
static handle forked(handle env, handle info) {
    int status = -1; pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < SLOTS; i++) if (slots[i]) { check(i); memset(slots[i], 0, sizes[i]); }
        _exit(lost ? 1 : 0);
    }
    waitpid(pid, &status, 0);
    for (int i = 0; i < SLOTS; i++) if (slots[i]) check(i);
    return number(env, status + lost);
}
__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function; handle (*all[])(handle, handle) = { step, digest, forked };
    int napi_set_named_property(handle, handle, const char *, handle);
    const char *names[] = { "step", "digest", "forked" };
    for (int i = 0; i < 3; i++) {
        napi_create_function(env, names[i], strlen(names[i]), all[i], 0, &function);
        napi_set_named_property(env, exports, names[i], function);
    }
    return exports;
}
"""


@pytest.fixture
def addon(tmp_path: Path) -> dict[str, bytes]:
    """A native addon with an allocator of its own, mimalloc: its files by their names."""
    source, module = tmp_path / "addon.c", tmp_path / "addon.node"
    source.write_text(ALLOCATING)
    options = ["-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-w", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(["cc", *options, "-o", module, source, "-lmimalloc"], check=True)
    return {"addon.node": module.read_bytes(), "libmimalloc.so.2": _library("mimalloc")}


def _library(name: str) -> bytes:
    asked = ["cc", f"-print-file-name=lib{name}.so"]
    path = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    assert Path(path).exists(), f"lib{name}-dev is missing: run make test"
    return Path(path).read_bytes()


async def _write(sandbox: Sandbox, path: str, content: bytes) -> None:
    data = f"Buffer.from('{base64.b64encode(content).decode()}', 'base64')"
    await run(sandbox, f"require('fs').writeFileSync('{path}', {data})")


async def test_addons_with_an_allocator_of_their_own(
    engine: Engine,  # noqa: F811
    addon: dict[str, bytes],
) -> None:
    control, guest = await boot(engine), await boot(engine)
    for sandbox in (control, guest):
        for name, data in addon.items():
            await _write(sandbox, f"/tmp/{name}", data)
        await run(sandbox, "globalThis.addon = require('/tmp/addon.node'); 0")
        assert await run(sandbox, "addon.step() + addon.step()") == "0"
    for cycle in range(4):
        guest = await mapped(engine, guest, f"c{cycle}")
        for code in ("addon.step() + addon.step()", "addon.digest()", "addon.forked()"):
            assert await run(guest, code) == await run(control, code), f"cycle {cycle}: {code}"
    assert await run(guest, "addon.step() + addon.forked()") == "0"


CHILD = r"""
    let seed = 7, dirty = 0, lost = 0;
    const slots = Array(60), zeros = Buffer.alloc(2100000);
    const chance = (below) => {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        return Math.floor(seed / 2147483648 * below);
    };
    // give back and take again: whatever is new must read as zeros
    const step = () => {
        for (let round = 0; round < 100; round++) {
            const i = chance(slots.length), old = slots[i];
            if (old && !old.equals(Buffer.alloc(old.length, i + 1))) lost++;
            const fresh = Buffer.alloc(5000 + chance(round % 5 ? 60000 : 2000000));
            if (!fresh.equals(zeros.subarray(0, fresh.length))) dirty++;
            slots[i] = fresh.fill(i + 1);
            if (round % 20 === 0) gc();
        }
    };
    process.on("message", () => {
        step();
        const hash = require("crypto").createHash("sha1");
        for (const slot of slots) hash.update(slot ?? "-");
        process.send([dirty, lost, hash.digest("hex")]);
    });
    const maps = require("fs").readFileSync("/proc/self/maps", "utf8");
    process.send(maps.includes("/tmp/jemalloc.so"));
"""


async def test_a_child_whose_every_allocation_is_by_jemalloc(engine: Engine) -> None:  # noqa: F811
    control, guest = await boot(engine), await boot(engine)
    for sandbox in (control, guest):
        await _write(sandbox, "/tmp/jemalloc.so", _library("jemalloc"))
        await run(
            sandbox,
            f"""globalThis.child = require("child_process").fork("/dev/stdin", [], {{
                execArgv: ["--expose-gc", "-e", {json.dumps(CHILD)}], env: {{
                    LD_PRELOAD: "/tmp/jemalloc.so", // and it gives back at once
                    MALLOC_CONF: "dirty_decay_ms:0,muzzy_decay_ms:0" }} }});
            globalThis.heard = () => new Promise((resolve) => child.once("message", resolve));
            globalThis.ask = () => (child.send(0), heard()); 0""",
        )
        assert await run(sandbox, "await heard()") == "true"
        await run(sandbox, "await ask()")
    for cycle in range(3):
        guest = await mapped(engine, guest, f"c{cycle}")
        for _ in range(2):
            answer = await run(guest, "JSON.stringify(await ask())")
            assert answer == await run(control, "JSON.stringify(await ask())"), f"cycle {cycle}"
            assert answer.startswith("'[0,0,"), f"cycle {cycle}"


ADDON = r"""
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
typedef void *handle;
int napi_create_function(handle, const char *, unsigned long, handle (*)(handle, handle),
                         void *, handle *);
int napi_create_double(handle, double, handle *);
static unsigned char *area; static unsigned long size = 8 << 20;
static unsigned long dirty(unsigned char *from, unsigned long length) {
    unsigned long count = 0;
    for (unsigned long i = 0; i < length; i++) count += from[i] != 0;
    return count;
}
static handle step(handle env, handle info) {
    handle result; double answer = 0;
    if (!area) {
        area = mmap(0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(area, 0xab, size);
    } else {
        /* as jemalloc and mimalloc do: give back, and count on zeros afterwards */
        answer += madvise(area, size / 2, MADV_DONTNEED) ? 1e9 : 0;
        answer += dirty(area, size / 2);
        answer += dirty(area + size / 2, size / 2) == size / 2 ? 0 : 1e8;
        answer += madvise(area + size / 2, 4096, MADV_FREE) ? 1e7 : 0;
        unsigned char *grown = mremap(area, size, 2 * size, MREMAP_MAYMOVE);
        if (grown != MAP_FAILED) { answer += dirty(grown + size, size); area = grown; }
        else answer += 0.5; /* several mappings: refused, as for any that was split */
    }
    napi_create_double(env, answer, &result);
    return result;
}
__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function; napi_create_function(env, "step", 4, step, 0, &function); return function;
}
"""


EXHAUST = """globalThis.held = [];
    try { for (;;) held.push(require("fs").openSync("/dev/null")); } catch (error) { error.code }"""
"""No file can be opened any more, /proc/self/maps neither."""


async def test_given_back_and_grown_memory_reads_as_zeros(
    engine: Engine,  # noqa: F811
    tmp_path: Path,
) -> None:
    source, addon = tmp_path / "addon.c", tmp_path / "addon.node"
    source.write_text(ADDON)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-w", "-o", addon, source], check=True)
    live = await boot(engine)
    await _write(live, "/tmp/addon.node", addon.read_bytes())
    await run(
        live,
        "globalThis.step = require('/tmp/addon.node'); globalThis.big = Buffer.alloc(3e7, 1); 0",
    )
    assert await run(live, "step()") == "0"
    await live.dump("a")
    await engine.rebase("a", None)
    for _ in range(2):
        twin = await restored(engine, "a")
        assert float(await run(twin, "step()")) in (0, 0.5)
        await twin.end()
    twin = await restored(engine, "a")
    await run(twin, EXHAUST)
    assert float(await run(twin, "step()")) in (0, 0.5)
    assert float(await run(live, "step()")) in (0, 0.5)  # without a memory file


async def test_garbage_is_collected_without_a_descriptor_left(
    engine: Engine,  # noqa: F811
) -> None:
    collect = """globalThis.gc ??= (require("v8").setFlagsFromString("--expose-gc"),
            require("vm").runInNewContext("gc"));
        for (let round = 0; round < 5; round++) {
            for (let i = 0; i < heap.length; i += 3) heap[i] = Array.from(heap[i], (x) => x + 1);
            for (const x of resized) { x.resize(1000); x.resize(3e6); }
            gc();
        }
        const zero = resized.every((x) => new Uint8Array(x, 1000).every((byte) => byte === 0));
        for (const x of resized) new Uint8Array(x).fill(5);
        [zero, heap.reduce((sum, x) => sum + x[0] + x.at(-1), 0)]"""
    control, guest = await boot(engine), await boot(engine)
    for sandbox in (control, guest):
        await run(
            sandbox,
            """globalThis.heap = Array.from({ length: 3000 }, (_, i) => Array(2000).fill(i + 0.5));
            globalThis.resized = Array.from({ length: 8 },
                () => new ArrayBuffer(3e6, { maxByteLength: 4e6 }));
            for (const x of resized) new Uint8Array(x).fill(5); 0""",
        )
    guest = await mapped(engine, guest)
    assert await run(guest, EXHAUST) == "'EMFILE'"
    for _ in range(2):
        assert await run(guest, collect) == await run(control, collect)


GROWING = r"""
#include <stdlib.h>
#include <string.h>
typedef void *handle;
int napi_create_function(handle, const char *, unsigned long, handle (*)(handle, handle),
                         void *, handle *);
int napi_create_double(handle, double, handle *);
static unsigned char *area;
static unsigned long size = 61 << 19, filled = 300 << 20, grown = 5ul << 30;
static handle grow(handle env, handle info) {
    handle result; unsigned long right = 0;
    if (!area) {
        area = malloc(size); memset(area, 7, size);
    } else {
        area = realloc(area, grown);
        for (unsigned long i = 0; i < size; i++) right += area[i] == 7;
        for (unsigned long i = size; i < grown; i += i < filled ? 4096 : 64 << 20) area[i] = 1;
    }
    napi_create_double(env, right, &result);
    return result;
}
__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function; napi_create_function(env, "grow", 4, grow, 0, &function); return function;
}
"""


async def test_memory_may_grow_far(limits: Limits, tmp_path: Path) -> None:
    """What realloc() adds takes no room in memory files, which have none here: that was fatal."""
    source, addon = tmp_path / "addon.c", tmp_path / "addon.node"
    source.write_text(GROWING)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-w", "-o", addon, source], check=True)
    async with started(replace(limits, memory=8 << 30, staging_size=160 << 20)) as small:
        live = await boot(small)
        await _write(live, "/tmp/addon.node", addon.read_bytes())
        await run(live, "globalThis.grow = require('/tmp/addon.node'); grow()")
        assert await run(await mapped(small, live), "grow()") == str(61 << 19)


AREAS = r"""
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
typedef void *handle;
int napi_create_function(handle, const char *, unsigned long, handle (*)(handle, handle),
                         void *, handle *);
int napi_create_double(handle, double, handle *);
enum { PAGE = 4096, PAGES = 1024, AREAS = 6 };
static unsigned char *area[AREAS]; static char gone[AREAS][PAGES], closed[AREAS][PAGES];
static unsigned long seed = 7, refused;
static unsigned long chance(unsigned long below) {
    seed = seed * 6364136223846793005ul + 1442695040888963407ul; return (seed >> 33) % below;
}
/* move, protect, cut, give back, map anew: parts of all, and write to the rest */
static void change(int i) {
    int at = chance(PAGES - 64), count = 1 + chance(64), kind = chance(6);
    unsigned char *from = area[i] + (long)at * PAGE; long length = (long)count * PAGE;
    if (kind == 0) {
        munmap(from, length); memset(gone[i] + at, 1, count);
    } else if (kind == 1) {
        mmap(from, length, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        memset(gone[i] + at, 0, count); memset(closed[i] + at, 0, count);
    } else if (kind == 2) { /* page by page: only what is one mapping can be moved at once */
        unsigned char *to = mmap(0, (long)PAGES * PAGE, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int p = 0; p < PAGES; p++) {
            unsigned char *old = area[i] + (long)p * PAGE, *new = to + (long)p * PAGE;
            if (gone[i][p]) munmap(new, PAGE);
            else refused += mremap(old, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, new) != new;
        }
        area[i] = to;
    } else
        for (int p = at; p < at + count; p++) {
            if (gone[i][p]) continue;
            unsigned char *page = area[i] + (long)p * PAGE;
            if (kind == 3) madvise(page, PAGE, MADV_DONTNEED);
            else if (kind == 4) mprotect(page, PAGE, (closed[i][p] = !closed[i][p]) ? 1 : 3);
            else if (!closed[i][p]) memset(page, chance(256), PAGE);
        }
}
static handle step(handle env, handle info) {
    handle result; unsigned long sum = 0;
    for (int i = 0; i < AREAS; i++) {
        if (!area[i]) {
            area[i] = mmap(0, (long)PAGES * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            memset(area[i], i + 1, (long)PAGES * PAGE);
        }
        for (int round = 0; round < 12; round++) change(i);
    }
    for (int i = 0; i < AREAS; i++)
        for (int p = 0; p < PAGES; p++)
            for (int at = 0; !gone[i][p] && at < PAGE; at += 8)
                sum = sum * 31 + *(unsigned long *)(area[i] + (long)p * PAGE + at);
    napi_create_double(env, refused ? -1. : (double)(sum >> 12), &result);
    return result;
}
__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function; napi_create_function(env, "step", 4, step, 0, &function); return function;
}
"""


async def test_mappings_that_are_moved_protected_and_cut(
    engine: Engine,  # noqa: F811
    tmp_path: Path,
) -> None:
    addon = tmp_path / "addon.node"
    options = ["-O1", "-shared", "-fPIC", "-w", "-x", "c", "-"]
    subprocess.run(["cc", *options, "-o", addon], input=AREAS, text=True, check=True)
    control, guest = await boot(engine), await boot(engine)
    for sandbox in (control, guest):
        await _write(sandbox, "/tmp/addon.node", addon.read_bytes())
        await run(sandbox, "globalThis.step = require('/tmp/addon.node'); step()")
    for cycle in range(4):  # each is rebased on what the one before has made of its mappings
        await guest.dump(f"c{cycle}")
        await engine.rebase(f"c{cycle}", None)
        await guest.end()
        guest = await restored(engine, f"c{cycle}")
        for _ in range(2):
            wanted = await run(control, "step()")
            assert wanted != "-1"
            assert await run(guest, "step()") == wanted, f"cycle {cycle}"
