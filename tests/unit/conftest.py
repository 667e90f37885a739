"""Guests for tests of the guest's own JavaScript: the image's Node, without a sandbox around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
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
