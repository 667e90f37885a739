"""Guests for tests of the guest's own JavaScript, the image's Node without a sandbox around it;
and a session on the fake engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import virtual_time
from fake_engine import FakeEngine
from fake_session import LIMITS, Played
from test_guest_js import Guest, find_node


@pytest.fixture(scope="module")
def node() -> str:
    return find_node()


@pytest.fixture
def guest(node: str, tmp_path: Path) -> Iterator[Guest]:
    guest = Guest(node, tmp_path)
    yield guest
    guest.close()


@pytest.fixture(scope="module")
def shared(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for tests that do not mind what others declared."""
    guest = Guest(node, tmp_path_factory.mktemp("shared"))
    yield guest
    guest.close()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(LIMITS)


@pytest.fixture
async def play(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Played]:
    """A started session; whatever happens, nothing of it remains."""
    virtual_time.install(monkeypatch)
    played = Played(engine)
    await played.session.start()
    await played.rest()
    yield played
    await played.session.close()
    assert engine.alive == []
