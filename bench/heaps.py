"""What guests are filled with: expressions of JavaScript, by their words in the tables."""

from __future__ import annotations

_TYPED = "Array.from({{ length: {} }}, (_, i) => new Float64Array(131072).fill(i + 0.5))"
_OBJECTS = "Array.from({ length: 9e6 }, (_, i) => ({ a: i, b: 's' + i, c: [i] }))"
COLLECTOR = (
    "require('node:v8').setFlagsFromString('--expose-gc'), require('node:vm').runInNewContext('gc')"
)
"""The function that collects garbage at once."""
IDLE = "idle"
MIDDLE = "1 GB of typed arrays"
BIGGEST = "4 GB of typed arrays"
HEAPS = {
    IDLE: "0",
    "200 MB of typed arrays": _TYPED.format(200),
    MIDDLE: _TYPED.format(1024),
    BIGGEST: _TYPED.format(4096),
    "1 GB of objects": _OBJECTS,
    "1 GB of strings": (
        "Array.from({ length: 1024 }, (_, i) => String(Buffer.alloc(1e6, 65 + i % 26)))"
    ),
    "1 GB of buffers": "Array.from({ length: 16384 }, (_, i) => Buffer.alloc(65536, i))",
}
COLLECTED = {
    "1 GB of objects, after a major collection": f"(globalThis.gc = ({COLLECTOR}), {_OBJECTS})"
}
"""With a collection after each change."""
