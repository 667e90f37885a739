"""What the kernel makes of a guest's answers to completion, inspection and is_complete."""

from __future__ import annotations

from typing import Any, cast

import pytest

from crkernel.lookup import Lookup
from crkernel.session import Session
from crkernel.timeline import Timeline


class Failing:
    """A session whose guest answers as one with a bug does."""

    timeline = Timeline()

    async def call(self, _op: str, **_fields: Any) -> dict[str, Any]:
        return {"status": "error", "error": {"name": "TypeError", "message": "x is not iterable"}}


async def test_a_lookup_that_fails_in_the_guest_is_no_empty_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ready() -> None:
        pass

    lookup = Lookup(cast(Session, Failing()), ready)
    reply = await lookup.complete("thing.", 6, dict)
    assert (reply["status"], reply["evalue"]) == ("error", "x is not iterable")
    assert reply["matches"] == []  # which jupyter console reads in any case
    reply = await lookup.inspect("thing", 2, 0)
    assert (reply["status"], reply["found"]) == ("error", False)
    assert await lookup.is_complete("1") == {"status": "unknown"}
    warning = "a lookup failed in the guest: TypeError: x is not iterable"
    assert [record.message for record in caplog.records] == [warning] * 3
