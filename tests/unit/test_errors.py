"""The error tree: what its docstring promises, and failures that arrive as data."""

from __future__ import annotations

import re

import pytest

from crkernel import errors
from crkernel.errors import CRKernelError, DumpRefused, EngineError, from_wire

BRANCHES = (
    errors.UserError,
    errors.StoreError,
    errors.EngineError,
    errors.CheckpointError,
)


def defined() -> dict[str, type[CRKernelError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, CRKernelError)
    }


def test_the_docstring_draws_the_whole_tree() -> None:
    tree = errors.__doc__ or ""
    for branch in BRANCHES:
        line = next(x for x in tree.splitlines() if re.search(rf"[├└] {branch.__name__} ", x))
        drawn = set(line.split(branch.__name__)[1].replace(",", " ").split())
        assert drawn == {child.__name__ for child in branch.__subclasses__()}
    assert set(CRKernelError.__subclasses__()) == set(BRANCHES)


def test_each_branch_has_its_own_exit_code() -> None:
    assert sorted(branch.exit_code for branch in BRANCHES) == [2, 3, 4, 5]
    for kind in defined().values():
        for branch in BRANCHES:
            if issubclass(kind, branch):
                assert kind.exit_code == branch.exit_code


@pytest.mark.parametrize("kind", defined().values())
def test_str_is_the_message_alone(kind: type[CRKernelError]) -> None:
    error = kind("it broke", hint="mend it")
    assert (str(error), error.hint, error.ename) == ("it broke", "mend it", kind.__name__)
    assert kind("it broke").hint is None


@pytest.mark.parametrize("name", defined())
def test_each_kind_crosses_the_wire(name: str) -> None:
    error = from_wire({"kind": name, "message": "m", "hint": "h"})
    assert (type(error).__name__, str(error), error.hint) == (name, "m", "h")


def test_unknown_kinds_become_engine_errors_and_keep_their_name() -> None:
    error = from_wire({"kind": "OSError", "message": "no space"})
    assert type(error) is EngineError
    assert str(error) == "OSError: no space"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": None, "message": None, "hint": None},
        {"kind": 7, "message": ["x"], "hint": {}},
        {"kind": ["DumpRefused"], "message": "  "},
    ],
)
def test_any_data_gives_an_error_with_a_message(data: dict[str, object]) -> None:
    error = from_wire(data)
    assert type(error) is EngineError
    assert "without saying which" in str(error)
    assert error.hint is None


def test_a_known_kind_without_message_keeps_its_kind() -> None:
    assert type(from_wire({"kind": "DumpRefused"})) is DumpRefused
