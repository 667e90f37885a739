"""The one place outside of `guest/*.js` that knows which language the guest speaks."""

from __future__ import annotations

import re
from typing import Any

from crkernel.engines import Limits
from crkernel.outcome import Language

_MAIN = "/usr/lib/crkernel/guest/main.js"
_HEAP_SHARE = 0.75
"""Of the memory limit, for V8's old space: the rest is buffers, code and stacks."""

_FEW_THREADS = ("--v8-pool-size=1", "--disable-sigusr1")
"""Each thread costs every checkpoint and restore a share: V8 has four by itself for garbage and
compilation, whatever the machine, and one waits for a signal that starts an inspector."""

_AT_REST = ("--no-memory-reducer-for-small-heaps",)
"""Every eight seconds V8 asks itself if there is something to collect, on the main thread, where it
looks like the program's own work."""

_RESERVED = (2 * 512 + 64) << 20
"""V8 reserves 512 MiB for the code of each of our two threads, and the kernel counts that."""


def _command(limits: Limits) -> list[str]:
    heap = max(64, int(limits.memory * _HEAP_SHARE) >> 20)
    return ["/usr/local/bin/node", f"--max-old-space-size={heap}", *_FEW_THREADS, *_AT_REST, _MAIN]


_INSTALL_SCRIPTS = """\
{
  const { status, signal, error } = require('node:child_process').spawnSync(
    'npm', ['rebuild', '--foreground-scripts', '--dangerously-allow-all-scripts', '--offline'],
    { cwd: '/home/work', stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, npm_config_cache: '/tmp/.npm', npm_config_logs_max: '0' } });
  if (status !== 0) throw error ?? new Error(`an install script failed (${signal ?? status})`);
}"""

JAVASCRIPT = Language(
    command=_command,
    environment={
        "HOME": "/home/work",
        "LANG": "C.UTF-8",
        "PATH": "/home/work/node_modules/.bin:/usr/local/bin:/usr/bin:/bin",
        "USER": "root",
        "NODE_REPL_HISTORY": "",
    },
    out_of_memory=re.compile(
        "(JavaScript|JS) heap out of memory|Fatal process out of memory"
        "|Array buffer allocation failed|[Ff]ailed to allocate memory|could not allocate memory"
    ),
    reserved=_RESERVED,
    noise="Waiting for the debugger to disconnect...\n",
    install_scripts=_INSTALL_SCRIPTS,
)


def language_info(version: str) -> dict[str, Any]:
    """For kernel_info_reply."""
    return {
        "name": "javascript",
        "version": version.lstrip("v"),
        "mimetype": "text/javascript",
        "file_extension": ".js",
        "pygments_lexer": "javascript",
        "codemirror_mode": "javascript",
        "nbconvert_exporter": "script",
    }
