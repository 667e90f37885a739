"""The guest of the fake engine. It runs what is Python as well as JavaScript, so that one test runs
on it and on Node:

    x = 1; list = [x]; list.push(6 * 7)
    fs = require('fs'); fs.writeFileSync('f', 'one')
    timer = setInterval(console.log, 20, 'tick')
    process.exit(3)

and `while (true) {}`, which only an interrupt or its end stops. Timers do not tick, but a guest
that has one never rests.
"""

from __future__ import annotations

import ast
import copy
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Json = dict[str, Any]
SPIN = "while (true) {}"
HELLO = {"language": "javascript", "version": "v24.0.0", "pid": 5000, "worker_tid": 5001}
_IDLE = 3 << 20


class Ended(Exception):
    """The guest has ended itself, `how` being what the event `exited` says."""

    def __init__(self, **how: int) -> None:
        super().__init__(how)
        self.how = how


class State:
    """All that a checkpoint keeps of a guest."""

    def __init__(self) -> None:
        self.variables: Json = {}
        self.files: dict[str, str | bytes] = {}
        self.timers = 0

    def copy(self) -> State:
        """One that is equal and shares nothing with this one."""
        return copy.deepcopy(self)

    @property
    def memory(self) -> int:
        """Bytes, with those that any guest takes."""
        values = self.variables.values()
        return _IDLE + sum(len(v) if isinstance(v, bytes) else 64 for v in values)


class Guest:
    """A guest in some state; `say` takes its events."""

    def __init__(self, state: State, say: Callable[[Json], None]) -> None:
        self.state = state
        self._say = say
        self.is_silent = False
        """Whether it answers nothing any more, as if it was stopped."""
        self._spinning: int | None = None  # the call that does not end
        self._operations: dict[str, Callable[[Json], Json]] = {
            "comm": lambda _: {"known": True},
            "complete": self._complete,
            "execute": self._execute,
            "hello": lambda _: {"main": True},
            "input": lambda _: {"ok": True},
            "interrupt": lambda _: {"ok": True},
        }

    @property
    def is_spinning(self) -> bool:
        """Whether a cell runs that does not end."""
        return self._spinning is not None

    def call(self, call: Json) -> list[Json]:
        """The replies that come at once: to an earlier call perhaps, and to this one unless it goes
        on. Raises Ended."""
        op, replies = call["op"], []
        if self.is_silent:
            return []
        if op == "execute" and call["code"] == SPIN:
            self._spinning = call["id"]
            return []
        if op == "interrupt" and self._spinning is not None:
            interrupted = _error("Interrupted", "the cell was interrupted", interrupted=True)
            replies.append({"id": self._spinning, **interrupted})
            self._spinning = None
        if (operation := self._operations.get(op)) is None:
            return [{"id": call["id"], **_error("TypeError", f"there is no {op}")}]
        return [*replies, {"id": call["id"], **operation(call)}]

    def _execute(self, call: Json) -> Json:
        try:
            value = self._run(call["code"])
        except Ended:
            raise
        except Exception as error:  # noqa: BLE001  the cell's own, whatever it is
            return _error(type(error).__name__, str(error))
        result = None if value is None else {"data": {"text/plain": _text(value)}, "metadata": {}}
        return {"status": "ok", "result": result, "user_expressions": {}}

    def _run(self, code: str) -> Any:
        """The value of the last statement."""
        value = None
        for statement in _Lists().visit(ast.parse(code)).body:
            value = None
            if not isinstance(statement, ast.Expr):
                self._evaluate(ast.Module([statement], []), "exec")
            if (wanted := _value_of(statement)) is not None:
                value = self._evaluate(ast.Expression(wanted), "eval")
        return value

    def _evaluate(self, tree: ast.AST, mode: str) -> Any:
        compiled = compile(ast.fix_missing_locations(tree), "cell", mode)
        return eval(compiled, {"__builtins__": {}, **self._globals()}, self.state.variables)

    def _globals(self) -> Json:
        return {
            "Array": _Array,
            "Buffer": SimpleNamespace(alloc=lambda size, byte=0: bytes([byte]) * size),
            "Math": SimpleNamespace(max=max, min=min),
            "console": SimpleNamespace(log=self._print),
            "globalThis": _Global(self.state.variables),
            "process": SimpleNamespace(exit=_exit, abort=_abort),
            "require": {"fs": _Files(self.state.files)}.__getitem__,
            "setInterval": self._set_interval,
        }

    def _print(self, *words: Any) -> None:
        text = " ".join(map(str, words)) + "\n"
        self._say({"event": "stream", "name": "stdout", "text": text})

    def _set_interval(self, *_call: Any) -> int:
        self.state.timers += 1
        return self.state.timers

    def _complete(self, call: Json) -> Json:
        name, _, start = call["code"].rpartition(".")
        return {"matches": [m for m in vars(self._globals()[name]) if m.startswith(start)]}


class _Array(list[Any]):
    def push(self, value: Any) -> int:
        self.append(value)
        return len(self)


class _Lists(ast.NodeTransformer):
    """Has literals in brackets make arrays."""

    def visit_List(self, node: ast.List) -> ast.AST:
        self.generic_visit(node)
        return ast.Call(ast.Name("Array", ast.Load()), [node], [])


class _Global:
    """Whose attributes are the variables."""

    def __init__(self, variables: Json) -> None:
        self.__dict__ = variables


class _Files:
    """The module fs, of the files of one state."""

    def __init__(self, files: dict[str, str | bytes]) -> None:
        self._files = files

    def writeFileSync(self, path: str, content: str | bytes) -> None:
        self._files[path] = content

    def readFileSync(self, path: str, _encoding: str = "") -> str | bytes:
        return self._files[path]


def _value_of(statement: ast.stmt) -> ast.expr | None:
    """The expression that has the value of a statement once that has run, or is it."""
    match statement:
        case ast.Expr(value):
            return value
        case ast.Assign([target]) | ast.AugAssign(target):
            return ast.parse(ast.unparse(target), mode="eval").body
    return None


def _text(value: Any) -> str:
    """As Node shows it."""
    if isinstance(value, list):
        return f"[ {', '.join(map(_text, value))} ]" if value else "[]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _error(name: str, message: str, *, interrupted: bool = False) -> Json:
    traceback = [f"{name}: {message}"]
    error = {"name": name, "message": message, "code": None, "traceback": traceback}
    return {"status": "error", "error": error | {"interrupted": interrupted}}


def _exit(code: int) -> None:
    raise Ended(code=code)


def _abort() -> None:
    raise Ended(signal=signal.SIGABRT)
