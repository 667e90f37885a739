"""Checkpoints and rewinds at several sizes of the guest, beside plain copies of as much memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.client import OURS, kernels
from bench.sandboxes import booted, execute, heap_code, spare
from bench.table import Table
from crkernel.engines import Engine, Sandbox

_SIZES = ((0, 15), (208, 9), (1024, 7))
"""Megabytes of typed arrays, and how often to measure."""
_NOTE = (
    "dump and restore: engine alone, from request to answer; copies and checkpoints go again, so "
    "all of them take memory that the machine has used before"
)
_DRIFT_CHECKS = 200
_TMPFS = "/dev/shm"
_AIM = "<= 2x"


def run(n: int | None) -> list[Table]:
    """n: dumps, restores and rewinds at each size."""
    tables = []
    for megabytes, times in _SIZES:
        title = f"A guest with {megabytes} MB of typed arrays" if megabytes else "An idle guest"
        table = Table(title, _NOTE)
        asyncio.run(_engine(table, megabytes, n or times))
        _rewinds(table, megabytes, n or times)
        tables.append(table)
    tables.append(asyncio.run(_drift()))
    return tables


async def _engine(table: Table, megabytes: int, n: int) -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    async with booted() as (engine, guest):
        if megabytes:
            await execute(guest, heap_code(megabytes))
        dump = await guest.dump("first")  # the first one of a sandbox is slower: not counted
        with _copies(dump.memory) as copies:
            for i in range(n + 1):
                for name, value in [*copies(), *await _checkpoint(engine, guest, f"d{i}")]:
                    if i:  # nor what takes memory, huge pages or small ones, that nobody has used
                        times[name].append(value)
    copy = times["write"]
    table.add("copy of as much, write(2)", "tmpfs", copy)
    table.add("copy of as much, cp", "tmpfs", times["cp"], against=copy)
    table.add(
        "checkpoint", "crkernel", times["dump"], against=copy, aim=_AIM if megabytes else "<= 20 ms"
    )
    table.add(
        "  of it frozen",
        "crkernel",
        times["frozen"],
        against=copy,
        aim="" if megabytes else "<= 12 ms",
    )
    table.add("  its size", "crkernel", times["size"], "MB")
    table.add("restore", "crkernel", times["restore"], against=copy)


async def _checkpoint(engine: Engine, guest: Sandbox, name: str) -> list[tuple[str, float]]:
    """Dump a guest and restore it next door; (what, milliseconds or megabytes). It goes again, as
    the copies do: on a virtual machine the first use of a page takes three times as long as to copy
    it, and who keeps what it took would have to pay for that each time."""
    begin = time.perf_counter()
    dump = await guest.dump(name)
    values = [("dump", _since(begin)), ("frozen", dump.frozen * 1e3), ("size", dump.memory / 1e6)]
    async with spare(engine) as sandbox:
        begin = time.perf_counter()
        await sandbox.restore(name)
        values.append(("restore", _since(begin)))
    await engine.drop([name])
    return values


@contextmanager
def _copies(size: int) -> Iterator[Callable[[], Iterator[tuple[str, float]]]]:
    """Gives a function that copies so many bytes and yields (how, milliseconds)."""
    data = bytes(range(256)) * (size // 256)
    with tempfile.TemporaryDirectory(dir=_TMPFS, prefix="crkernel-bench-") as name:
        first, second = Path(name, "first"), Path(name, "second")

        def copy() -> Iterator[tuple[str, float]]:
            begin = time.perf_counter()
            first.write_bytes(data)
            yield "write", _since(begin)
            begin = time.perf_counter()
            shutil.copyfile(first, second)
            yield "cp", _since(begin)
            first.unlink()
            second.unlink()

        yield copy


def _rewinds(table: Table, megabytes: int, n: int) -> None:
    times = []
    with kernels(OURS) as (kernel,):
        if megabytes:
            kernel.run(heap_code(megabytes))
        targets = [kernel.run(f"globalThis.x = {i}").content["execution_count"] for i in range(2)]
        for i in range(n):
            time.sleep(1.0 if megabytes else 0.6)  # until there is a warm spare again
            times.append(kernel.run(f"%rewind {targets[i % 2]}").idle)
    table.add("%rewind, request to idle", "crkernel", times, aim="" if megabytes else "<= 60 ms")


async def _drift() -> Table:
    table = Table(
        "Has the guest gone on by itself?", "asked before each cell; baseline: running 1+1"
    )
    times: defaultdict[str, list[float]] = defaultdict(list)
    async with booted() as (_, guest):
        await guest.dump("only")
        for _ in range(_DRIFT_CHECKS):
            begin = time.perf_counter()
            await execute(guest, "1+1")
            times["cell"].append(_since(begin))
            begin = time.perf_counter()
            await guest.rested()
            times["check"].append(_since(begin))
    table.add("1+1, engine alone", "crkernel", times["cell"])
    table.add("drift check", "crkernel", times["check"], against=times["cell"])
    return table


def _since(begin: float) -> float:
    return 1e3 * (time.perf_counter() - begin)
