"""Checkpoints out of staging and into another one, both engines, beside a program that does nothing
but write or read as much, through the same kind of stream.

Needs root and docker.io for the lines that name Docker, and the docker package.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from bench.engines import dockerd, our_command
from bench.sandboxes import booted, execute, heap_code
from bench.table import Table
from crkernel.engines import Engine

_MB = 1 << 20
_HEAP_MB = 208
_WRITE = f"n = {_HEAP_MB * _MB}; b = bytes({_MB})\nwhile n: n -= os.write(1, b[:n])"
_READ = f"n = {_HEAP_MB * _MB}\nwhile n: n -= len(os.read(0, {_MB}))\nos.write(1, b'.')"

Values = defaultdict[str, list[float]]


def run(n: int | None) -> list[Table]:
    """n: checkpoints each way."""
    table = Table(
        "Checkpoints that travel",
        f"a guest with {_HEAP_MB} MB; ratios are to a program that writes or reads as much",
    )
    with ExitStack() as stack:
        engines = ["local"]
        if os.geteuid() == 0 and shutil.which("dockerd"):
            stack.enter_context(dockerd())
            our_command("image", "build", "--engine", "docker")
            engines.append("docker")
        for name in engines:
            values = asyncio.run(_measure(name, n or 5))
            for way, plain in (("fetch", "write"), ("push", "read")):
                table.add(f"a program's {plain}", name, values[plain], "MB/s")
                table.add(way, name, values[way], "MB/s", against=values[plain])
    if "docker" not in engines:
        table.lacks("fetch, push", "docker", "needs root and dockerd")
    return [table]


async def _measure(name: str, n: int) -> Values:
    """Megabytes a second of each."""
    values = Values(list)
    async with booted(name, staging=4 * _HEAP_MB * _MB) as (engine, live):
        await execute(live, heap_code(_HEAP_MB))
        await live.dump("a")
        for _ in range(n):
            begin, stream = time.perf_counter(), []
            async for data in engine.fetch(["a"]):
                stream.append(data)
            values["fetch"].append(_rate(sum(map(len, stream)), begin))
            begin = time.perf_counter()
            names = await engine.push(_each(stream))
            values["push"].append(_rate(sum(map(len, stream)), begin))
            await engine.drop(list(names.values()))
            values["write"].append(await _written(engine))
            values["read"].append(await _read(engine))
    return values


async def _each(stream: list[bytes]) -> AsyncIterator[bytes]:
    for data in stream:
        yield data


async def _written(engine: Engine) -> float:
    """What comes out of a program that only writes."""
    async with _program(engine, _WRITE) as (reader, _):
        begin, count = time.perf_counter(), 0
        while data := await reader.read(_MB):
            count += len(data)
        return _rate(count, begin)


async def _read(engine: Engine) -> float:
    """What one takes that only reads, and says so at the end."""
    async with _program(engine, _READ) as (reader, writer):
        begin = time.perf_counter()
        for _ in range(_HEAP_MB):
            writer.write(bytes(_MB))
            await writer.drain()
        await reader.read(1)
        return _rate(_HEAP_MB * _MB, begin)


@asynccontextmanager
async def _program(engine: Engine, code: str) -> AsyncIterator[tuple[Any, asyncio.StreamWriter]]:
    """Python with a stream of the engine's kind for its input and output."""
    words = ["-c", f"import os\n{code}"]
    if engine.name == "docker":
        from crkernel.engines.docker import DockerEngine, container

        assert isinstance(engine, DockerEngine)
        assert engine._daemon is not None
        stream = await engine._daemon.run(engine._container, [*container.GATE[:-1], *words])
        yield stream, stream.writer
        stream.writer.close()
        return
    ours, theirs = socket.socketpair()
    with theirs:
        program = await asyncio.create_subprocess_exec(
            "python3", *words, stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    reader, writer = await asyncio.open_connection(sock=ours, limit=_MB)
    yield reader, writer
    writer.close()
    await program.wait()


def _rate(size: int, begin: float) -> float:
    return size / _MB / (time.perf_counter() - begin)
