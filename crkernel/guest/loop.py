"""Looks from outside at the event loop of a program that is built on libuv.

libuv counts the turns of its loop, each just before it waits. A loop that waits and has not turned
since it was last looked at has called nothing of the program's. That tells what CPU time cannot:
the way back into the wait after a dump takes time as well, and more where processors are short.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct

_LOOP = b"default_loop_struct"
"""The loop of the main thread, as Node's own binary has it among its symbols."""
_FIELDS = struct.Struct("<40xQ16xi")
"""Of `uv_loop_t`: internal_fields, backend_fd."""
_TURNS = struct.Struct("<8xQ")
"""Of `uv__loop_internal_fields_t`: loop_metrics.metrics.loop_count."""
_HIGHEST = (1 << 63) - 1  # nothing is there, and pread(2) takes no more
_IMAGE = "/usr/"
"""A program from here is the image's; no guest can have written it."""
_WAITS = {"x86_64": (b"232", b"281", b"441"), "aarch64": (b"22", b"441")}.get(
    os.uname().machine, ()
)
"""epoll_wait, epoll_pwait, epoll_pwait2."""

_EXECUTABLE, _SYMBOLS = 2, 2  # ET_EXEC: what is in the symbol table are addresses; SHT_SYMTAB
_SECTION = struct.Struct("<4xI16xQQI20x")  # type, offset, size, link
_SYMBOL = struct.Struct("<I4xQ8x")  # name, value


class Loop:
    """The loop at an address in the memory of a process."""

    def __init__(self, pid: int, address: int) -> None:
        self._pid = pid
        fields, self._descriptor = _FIELDS.unpack(self._read(address, _FIELDS.size))
        self._fields = int(fields)

    def turns(self) -> int | None:
        """How often it has turned; None once the process has ended."""
        try:
            return int(_TURNS.unpack(self._read(self._fields, _TURNS.size))[0])
        except OSError:
            return None

    def waits(self) -> bool:
        """Whether it waits for something to happen."""
        try:
            with open(f"/proc/{self._pid}/syscall", "rb", buffering=0) as file:
                number, _, arguments = file.read(256).partition(b" ")
        except OSError:
            return False
        return number in _WAITS and int(arguments.split()[0], 16) == self._descriptor

    def _read(self, address: int, size: int) -> bytes:
        memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY)
        try:
            data = os.pread(memory, size, min(address, _HIGHEST))
        finally:
            os.close(memory)
        if len(data) < size:
            raise OSError(f"process {self._pid} has no loop any more")
        return data


def of(pid: int) -> Loop | None:
    """The main loop of a process; None if it cannot be found."""
    try:
        program = os.readlink(f"/proc/{pid}/exe")
        address = address_in(program) if program.startswith(_IMAGE) else None
        return None if address is None else Loop(pid, address)
    except OSError:
        return None  # it has just ended


@functools.cache
def address_in(program: str) -> int | None:
    """Where a program has its loop; takes a millisecond."""
    with open(program, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as elf:
        (kind,) = struct.unpack_from("<H", elf, 0x10)
        (sections,) = struct.unpack_from("<Q", elf, 0x28)
        _, count = struct.unpack_from("<HH", elf, 0x3A)
        table = [_SECTION.unpack_from(elf, sections + i * _SECTION.size) for i in range(count)]
        for type_, offset, size, link in table:
            if kind == _EXECUTABLE and type_ == _SYMBOLS:
                return _value(elf, offset, size, table[link][1], table[link][2])
    return None


def _value(elf: mmap.mmap, symbols: int, size: int, names: int, names_size: int) -> int | None:
    name = elf.find(b"\0%s\0" % _LOOP, names, names + names_size) + 1 - names
    at = symbols
    while name > 0 and (at := elf.find(struct.pack("<I", name), at, symbols + size)) >= 0:
        if (at - symbols) % _SYMBOL.size == 0:
            return int(_SYMBOL.unpack_from(elf, at)[1])
        at += 1
    return None
