"""Names of globals that cells declare as something else: the guest goes on with what they were."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from test_guest_js import MAIN, Guest

SCAN = Path(__file__).with_name("late_names.js")
KEEP = {"require", "console", "display", "progress", "undefined", "NaN", "Infinity"}
"""Names that the cells below use, and those that nothing can declare."""


def events(guest: Guest) -> list[Any]:
    """The events so far. Guest.output() asks for them by the name `process`."""
    guest.value("console.log('the end'); undefined")
    found = []
    while (event := guest.events.get(timeout=30)).get("text") != "the end\n":
        found.append(event)
    return found


def test_the_main_thread_looks_up_no_global_late(node: str) -> None:
    command = [node, "--expose-internals", str(SCAN), str(MAIN)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert {"main.js", "output.js", "presentation.js", "input.js"} <= set(answer["scanned"])
    assert answer["found"] == []


def test_any_global_can_be_declared_as_something_else(guest: Guest) -> None:
    listed = guest.value("Object.getOwnPropertyNames(globalThis).join()")
    assert listed
    names = [name for name in listed.strip("'").split(",") if name not in KEEP]
    assert {"process", "globalThis", "Symbol", "Object", "Buffer", "setTimeout"} <= set(names)
    for name in names:
        guest.value(f"const {name} = (row) => row * 2; undefined")
    assert guest.value("[1, 'a', { a: 1 }]") == "[ 1, 'a', { a: 1 } ]"
    assert guest.value("process(4)") == "8"
    assert guest.value("[{ a: process(1) }, { a: 2 }]") == "[ { a: 2 }, { a: 2 } ]"
    assert guest.value("_7.length") == "2"
    guest.value("console.log('n =', 1); console.error({ a: 1 }); undefined")
    assert [event["text"] for event in events(guest)] == ["n = 1\n", "{ a: 1 }\n"]
    guest.value(
        "console.table([{ a: 1 }]); display([{ a: 1 }]); display.html('<b>'); display.table([[1]]);"
        " for (const x of progress([1, 2])); undefined"
    )
    assert len([event for event in events(guest) if event["event"] == "display"]) >= 5
    guest.value("require('timers').setTimeout(() => null.x); undefined")
    assert guest.error("null.x")["traceback"][-1] == "    at cell 7:1:6"
    assert guest.value("import os from 'os'; typeof os.cpus") == "'function'"
    assert guest.value("const t: number = 6; await t") == "6"
    assert guest.value("let before = 1; before") == "1"
    assert guest.value("const before = 2; before") == "2"
    variables = guest.call("variables", described=1000)["names"]
    assert {"process", "before"} <= set(variables)
    cell = guest.start("for (;;);")
    guest.interrupt()
    assert guest.reply(cell)["error"]["interrupted"]
