"""The command line: `python -m bench [NAME...] [--n N] [--json FILE]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from bench.table import Table
from crkernel.errors import CRKernelError

NAMES = (
    *("kernel", "start", "checkpoint", "memory", "undo", "runc", "engines", "travel", "output"),
    "peers",
)
"""Modules with a function `run(n) -> list[Table]`; n is None for the module's own choice."""


def main() -> int:
    """Run what is named, all by default; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=sys.modules["bench"].__doc__
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; else all")
    parser.add_argument(
        "--n", type=int, help="repetitions, in place of each benchmark's own choice"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there, too")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if options.n is not None and options.n < 1:
        parser.error("--n must be at least 1")
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"there is no folder {options.json.parent} to write --json into")
    tables: list[Table] = []
    for name in options.names or NAMES:
        begin = time.monotonic()
        try:
            found: list[Table] = importlib.import_module(f"bench.{name}").run(options.n)
        except CRKernelError as error:
            print(f"{name}: {error}", file=sys.stderr)
            if error.hint:
                print(f"hint: {error.hint}", file=sys.stderr)
            return error.exit_code
        for table in found:
            print(table.text(), end="\n\n", flush=True)
        print(f"({name} took {time.monotonic() - begin:.0f} s)\n", flush=True)
        tables += found
    if options.json is not None:
        options.json.write_text(json.dumps([table.data() for table in tables], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
