"""The one place outside of `guest/*.js` that knows which language the guest speaks."""

from __future__ import annotations

from typing import Any

from crkernel.engines import Limits
from crkernel.session import Language

_MAIN = "/usr/lib/crkernel/guest/main.js"
_HEAP_SHARE = 0.75
"""Of the memory limit, for V8's old space: the rest is buffers, code and stacks."""


def _command(limits: Limits) -> list[str]:
    heap = max(64, int(limits.memory * _HEAP_SHARE) >> 20)
    return ["/usr/local/bin/node", f"--max-old-space-size={heap}", _MAIN]


JAVASCRIPT = Language(
    command=_command,
    environment={
        "HOME": "/home/work",
        "LANG": "C.UTF-8",
        "PATH": "/home/work/node_modules/.bin:/usr/local/bin:/usr/bin:/bin",
        "USER": "root",
        "NODE_REPL_HISTORY": "",
    },
    out_of_memory="JavaScript heap out of memory",
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
