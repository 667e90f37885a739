"""The table of magics: names, arguments and help texts. It imports nothing.

A new magic is one entry here and one branch where magics are executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Argument = Literal["none", "ref", "range", "count", "label", "setting", "magic", "npm", "code"]
"""What a magic takes: nothing, a reference, REF or REF..REF, a positive number, ..., code to run
behind its options or below it."""


@dataclass(frozen=True, slots=True)
class Magic:
    """One magic. `cell` says whether it works as `%%name` with a body, all work as `%name`."""

    name: str
    usage: str
    summary: str
    help: str
    argument: Argument = "none"
    required: bool = False
    cell: bool = False
    changes_state: bool = False
    needs_guest: bool = True
    options: tuple[str, ...] = ()


REFERENCES = """\
REF is one of
  7          the state right after In [7]
  7+1        a later state of the same cell: the guest went on by itself
  name       a label given by %checkpoint
  -2         two cells back from the head
  head       where the live guest continues from
  root       the guest just after boot
  before 5   the state from which cell 5 started
  r1.7       checkpoint 7 of the life of the kernel before its first restart"""

_ALL = (
    Magic(
        "rewind",
        "%rewind REF",
        "go to a checkpoint: memory, processes and files as they were",
        f"""\
Restores the guest as it was at REF: variables, timers, servers, child processes and the files
below /home/work and /tmp. The next cell continues from there and makes a branch.

{REFERENCES}

Examples:
  %rewind 3
  %rewind before 5
  %rewind good

Nothing is lost: checkpoints made since stay in the %timeline, %redo and %rewind lead back.
Does not touch the notebook's cells and outputs. If a restore fails, the present stays as it is.""",
        argument="ref",
        required=True,
        changes_state=True,
    ),
    Magic(
        "undo",
        "%undo [n]",
        "go back to the state before the last n cells (1)",
        """\
Goes n cells back from the head, to the state from which that cell started.

Examples:
  %undo
  %undo 3

Like %rewind it loses nothing: %redo goes forward again. Does not touch cells and outputs of the
notebook.""",
        argument="count",
        changes_state=True,
    ),
    Magic(
        "redo",
        "%redo [n]",
        "go n cells (1) forward again after an undo or rewind",
        """\
Goes n cells forward on the way that the head last took.

Examples:
  %redo
  %redo 2

Restores the checkpoints that were made then; no code runs again (%rerun does that).""",
        argument="count",
        changes_state=True,
    ),
    Magic(
        "rerun",
        "%rerun REF [..REF]  or  %%rerun REF [..REF] with code below",
        "run cells again from a prior state, with the first one's code replaced by %%rerun",
        f"""\
Goes to the state before the first REF and runs the recorded code of each cell on the path to the
second one again, under headings; stops at the first error. Without ..REF the path ends at the head.
%%rerun runs the code below it, or one %npm, in place of the first cell's code.

{REFERENCES}

Examples:
  %rerun 3
  %rerun 3..7
  %rerun before good .. head

  %%rerun 3
  let start = 100

Makes a branch: the checkpoints of the first run stay. Does not change the notebook's cells.""",
        argument="range",
        required=True,
        cell=True,
        changes_state=True,
    ),
    Magic(
        "checkpoint",
        "%checkpoint [label]",
        "name the current state",
        """\
Gives the head a name that works wherever a checkpoint is asked for. A name that is in use moves
here. Without a name it says which checkpoint is the head.

Examples:
  %checkpoint loaded
  %rewind loaded

A label is made of letters, digits, _, - and single dots and begins with a letter or _.
Does not change the state of the guest.""",
        argument="label",
    ),
    Magic(
        "timeline",
        "%timeline [--all]",
        "draw the tree of checkpoints",
        """\
Shows each checkpoint with its labels, its age, how long the cell ran, what taking it cost and the
first line of code. → marks the head, ✗ what cannot be rewound to and why, ! a cell that failed.

Options:
  --all   all rows; otherwise the last 200

Examples:
  %timeline
  %timeline --all

Does not change the state of the guest.""",
        options=("--all",),
    ),
    Magic(
        "recall",
        "%recall REF",
        "put the code of a checkpoint into the next cell",
        f"""\
Takes the code that led to REF and offers it as the next cell, to be changed and run.

{REFERENCES}

Examples:
  %recall 3
  %recall -1

Runs nothing and does not change the state of the guest.""",
        argument="ref",
        required=True,
    ),
    Magic(
        "forget",
        "%forget REF [..REF]",
        "drop checkpoints: their memory and files, not their place in the timeline",
        f"""\
Frees what staging holds of REF, or of all checkpoints on the path from the first REF to the second.
They cannot be rewound to any more; %recall still works, and %rerun from a state that stays. What
other checkpoints share with them stays until these are dropped too; %status shows what each of the
newest takes.

{REFERENCES}

Examples:
  %forget 3
  %forget 3..7

The state that the guest would come back to if it died stays. Does not change the state of the
guest.""",
        argument="range",
        required=True,
    ),
    Magic(
        "reset",
        "%reset",
        "go to a fresh guest",
        """\
Goes to a state with no variables, no processes and the files of the start.

Example:
  %reset

The timeline stays, %rewind leads back to any checkpoint in it. Does not touch the notebook's cells
and outputs, nor settings made with %config.""",
        changes_state=True,
    ),
    Magic(
        "config",
        "%config [name [[=] value]]",
        "show or set the kernel's settings",
        """\
Without arguments shows all settings, with a name that one, with a value sets it.

Examples:
  %config
  %config memory
  %config memory = 2G
  %config memory 2G

Holds for this kernel until it ends. Does not change the state of the guest.""",
        argument="setting",
        needs_guest=False,
    ),
    Magic(
        "npm",
        "%npm install|uninstall|update|prune|dedupe|ls|outdated|view [package ...] [options]",
        "packages from the npm registry, in /home/work/node_modules",
        """\
Runs npm outside of the guest, which has no network, and puts what it made of node_modules,
package.json and package-lock.json into /home/work. It can be imported at once. That is a cell with
a checkpoint: %undo takes the package away again. Interrupted, or if it fails, it changes nothing.

Options of install and others:
  --scripts          run install scripts, in the guest (without network, if it has none)
  --save-dev (-D), --save-exact (-E), --save-optional (-O), --save-peer, --no-save
  --omit=dev, --omit=optional, --legacy-peer-deps, --force, --offline, --prefer-offline
  --loglevel=http    show each download
Options of ls, outdated, view: --all, --json, --long

Examples:
  %npm install left-pad@1 @observablehq/plot
  %npm install typescript --save-dev
  %npm ls
  %npm view left-pad

The registry is the one in ~/.npmrc of this machine. Takes packages of the registry only; no
addresses, folders, git. Does not unload what the guest has imported already: rewind to before the
import, and install there.""",
        argument="npm",
        changes_state=True,
    ),
    Magic(
        "status",
        "%status",
        "engine, image, sizes, limits and the last checkpoint's times",
        """\
Shows what the kernel runs on and how it is doing.

Example:
  %status

Does not change the state of the guest.""",
    ),
    Magic(
        "time",
        "%time CODE  or  %%time with code below",
        "run code and say how long it took",
        """\
Runs the code as a cell and shows the time on the clock, the CPU time of the guest (user and system,
all its threads) and its heap, buffers included, before and after.

Examples:
  %time rows.sort()
  %time await load('big.csv')

  %%time
  const index = new Map(rows.map((row) => [row.id, row]))

The heap also shrinks when garbage is collected meanwhile: the magic does not force it. %timeit
measures what takes less than milliseconds.""",
        argument="code",
        required=True,
        cell=True,
        changes_state=True,
    ),
    Magic(
        "timeit",
        "%timeit [-n LOOPS] [-r RUNS] CODE  or  %%timeit with code below",
        "run code many times and say how long one run takes",
        """\
Calls the code as a function in a loop, several times over, and shows the best time of one call, and
the mean with its standard deviation. It does not declare names in the notebook; what it does to
others happens as often as it is called.

Options:
  -n LOOPS   calls in each run; as many as take 0.1 s if not given
  -r RUNS    runs (7)

Examples:
  %timeit rows.map((row) => row.price)
  %timeit -n 1000 -r 3 JSON.stringify(rows)

  %%timeit
  let sum = 0
  for (const row of rows) sum += row.price

Code with await is awaited each time.""",
        argument="code",
        required=True,
        cell=True,
        changes_state=True,
        options=("-n", "-r"),
    ),
    Magic(
        "stack",
        "%stack",
        "show the stack of the last error in full",
        """\
Shows the last error that was told, of a cell or of a callback, with all its frames: those of Node
and of this kernel, which tracebacks leave out, and those of its causes.

Example:
  %stack

A stack has no more frames than Error.stackTraceLimit, which is 10. Does not change the state of the
guest.""",
    ),
    Magic(
        "who",
        "%who",
        "list the names that cells have declared",
        """\
Lists variables, functions and classes that cells have declared, in the order of the alphabet.

Example:
  %who

Runs none of your code and does not change the state of the guest.""",
    ),
    Magic(
        "whos",
        "%whos",
        "list the names that cells have declared, with types, sizes and values",
        """\
Shows each name's type, size (characters, items, entries, keys, or bytes of buffers) and the
beginning of its value. Getters and proxies are not run.

Example:
  %whos

Runs none of your code and does not change the state of the guest.""",
    ),
    Magic(
        "lsmagic",
        "%lsmagic",
        "list all magics",
        """\
Lists all magics, one a line.

Example:
  %lsmagic

Does not change the state of the guest.""",
        needs_guest=False,
    ),
    Magic(
        "help",
        "%help [magic]  or  %magic?",
        "explain a magic",
        """\
Shows what a magic does, what it takes and what it does not touch; without a name lists all.

Examples:
  %help rewind
  %rewind?

Does not change the state of the guest.""",
        argument="magic",
        needs_guest=False,
    ),
)

MAGICS: dict[str, Magic] = {magic.name: magic for magic in _ALL}
