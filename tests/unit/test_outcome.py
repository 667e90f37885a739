"""What of a guest's words is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crkernel import outcome
from crkernel.engines import Limits
from crkernel.javascript import JAVASCRIPT

LONG = "x" * 70_000


def event_of(body: bytes) -> dict[str, Any]:
    """An event as the listener gets it."""
    return {**json.loads(body), "body": body}


def body_of(data: object, metadata: object = None, rest: str = "") -> bytes:
    """A display as a guest writes it."""
    return (
        f'{{"event":"display","data":{json.dumps(data)},"metadata":{json.dumps(metadata or {})},'
        f'"transient":{{"display_id":"d"}}{rest},"update":false}}'
    ).encode()


def packed(body: bytes) -> bytes | None:
    event = event_of(body)
    shown = outcome.bundle(event)
    assert shown is not None
    return outcome.packed(event, shown)


@pytest.mark.parametrize(
    ("message", "code", "limit"),
    [
        ("spawn sleep EAGAIN", "EAGAIN", "max_processes"),
        ("EAGAIN", "ERR_WORKER_INIT_FAILED", "max_processes"),
        ("read EAGAIN", "EAGAIN", None),
        ("Worker terminated ...: JS heap out of memory", "ERR_WORKER_OUT_OF_MEMORY", "memory"),
        ("EFBIG: file too large, write", "EFBIG", "file_size"),
        ("ENOSPC: no space left on device, write", "ENOSPC", "disk_size"),
        ("ENOSPC: System limit for number of file watchers reached", "ENOSPC", None),
        ("database or disk is full", "ERR_SQLITE_ERROR", "disk_size"),
        ("a guess at MemoryError", None, None),
    ],
)
def test_an_error_names_the_limit_that_was_hit(
    message: str, code: str | None, limit: str | None
) -> None:
    error = {"name": "Error", "message": message, "code": code, "traceback": ["Error"]}
    checked = outcome.error_of(error, Limits.default(), JAVASCRIPT)
    if limit is None:
        assert checked["message"] == message
    else:
        assert f"limit {limit} = " in checked["message"]
        assert f"limit {limit} = " in checked["traceback"][-1]


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("tar: a: Cannot write: No space left on device\ntar: exiting now", "disk_size"),
        ("head: error writing 'standard output': File too large", "file_size"),
        ("OSError: [Errno 27] File too large", "file_size"),
        ("413 File too large\ncurl: (22) it says 413", None),
        ("Traceback\nMemoryError", "memory"),
        ("is MemoryError a name?", None),
        ("sh: fork: Cannot allocate memory\n", "memory"),
        ("sh: 0: Cannot fork\n", "max_processes"),
        ("bash: fork: retry: Resource temporarily unavailable", "max_processes"),
        (
            "    self.pid = _fork_exec(\n  ^^^\nBlockingIOError: Resource temporarily unavailable",
            "max_processes",
        ),
        ("RuntimeError: can't start new thread", "max_processes"),
        ("cat: -: Resource temporarily unavailable", None),
        ("    os.read(0, 1)\nBlockingIOError: [Errno 11] Resource temporarily unavailable", None),
    ],
)
def test_what_a_child_says_may_come_of_a_limit(said: str, limit: str | None) -> None:
    message = f"Command failed: echo Cannot fork\n{said}"
    error = {"name": "Error", "message": message, "traceback": ["Error"]}
    checked = outcome.error_of(error, Limits.default(), JAVASCRIPT)
    if limit is None:
        assert (checked["message"], checked["traceback"]) == (message, ["Error"])
    else:
        assert f"(perhaps limit {limit} = " in checked["message"]
        assert checked["traceback"][-1].startswith(f"hint: perhaps limit {limit} = ")
    alone = outcome.error_of(error | {"message": said}, Limits.default(), JAVASCRIPT)
    assert alone["message"] == said, "no child's"


def test_a_bundle_holds_what_the_notebook_format_allows() -> None:
    data = {
        "text/html": "<b>",
        "text/plain": 5,
        "application/json": [1],
        "application/x+json": None,
        "application/json; a=b": {},
        "image/png": ["a"],
        "no type": "x",
        "": "x",
    }
    assert outcome.bundle({"data": data, "metadata": 5}) == {
        "data": {"text/html": "<b>", "application/json": [1], "application/x+json": None},
        "metadata": {},
    }
    assert outcome.bundle({"data": [1]}) is None


def test_a_long_display_is_passed_on_as_it_is() -> None:
    content = packed(body_of({"text/plain": LONG}))
    assert content is not None
    assert json.loads(content) == {
        "data": {"text/plain": LONG},
        "metadata": {},
        "transient": {"display_id": "d"},
    }


@pytest.mark.parametrize(
    "body",
    [
        body_of({"text/plain": "short"}),
        body_of({"text/plain": LONG, "text/html": 5}),
        body_of({"application/json": [LONG]}),
        body_of({"application/json": LONG}, {"x": 1}),
        body_of({"text/plain": LONG + "\ud800"}),
        body_of({"text/plain": LONG + "\ud800"}).replace(b"ud800", b"uD800"),
        body_of({"text/plain": LONG}).replace(b'_id":"d"', rb'_id":"\uDfFf"'),
        body_of({"text/plain": LONG}).replace(b'"display_id":"d"', b'"display_id":5'),
        body_of({"text/plain": LONG}).replace(b'"event"', b' "event"'),
        body_of({"text/plain": LONG}) + b" ",
    ],
)
def test_what_was_not_checked_is_encoded_anew(body: bytes) -> None:
    assert packed(body) is None
