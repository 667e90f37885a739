"""Where the engine docker looks for its daemon, and what it says if that cannot be told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from crkernel import image
from crkernel.engines import choice
from crkernel.engines.docker.endpoint import Endpoint
from crkernel.errors import EngineUnavailable


@pytest.fixture(autouse=True)
def _no_daemon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "CONTEXT", "TLS_VERIFY", "CERT_PATH"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("10.0.0.5:2375", "tcp://10.0.0.5:2375"),
        ("abacus:2375", "tcp://abacus:2375"),
        (" ssh://me@abacus ", "ssh://me@abacus"),
    ],
)
def test_an_address_has_a_scheme(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert Endpoint.find().url == url


def test_auto_stays_local_where_certificates_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    monkeypatch.setattr(image, "image_path", lambda: None)
    assert choice.choose() == "local"


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Docker's configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def write_context(folder: Path, name: str, text: str) -> None:
    """As `docker context create` does."""
    where = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    where.mkdir(parents=True)
    (where / "meta.json").write_text(text)


def test_the_context_of_the_configuration(contexts: Path) -> None:
    endpoints = {"docker": {"Host": "tcp://abacus:2375", "SkipTLSVerify": False}}
    said = {"Name": "far", "Metadata": {}, "Endpoints": endpoints}
    write_context(contexts, "far", json.dumps(said))
    (contexts / "config.json").write_text(json.dumps({"currentContext": "far"}))
    assert Endpoint.find().url == "tcp://abacus:2375"


def test_the_context_of_the_configuration_is_gone(contexts: Path) -> None:
    (contexts / "config.json").write_text(json.dumps({"currentContext": "far"}))
    with pytest.raises(EngineUnavailable, match="there is no docker context 'far'") as caught:
        Endpoint.find()
    assert "docker context use default" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"Endpoints": {}, "Name": "far"}'])
def test_a_context_that_is_damaged(
    text: str, contexts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_context(contexts, "far", text)
    (contexts / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(EngineUnavailable, match="context 'far' cannot be read: ") as caught:
        Endpoint.find()
    assert "DOCKER_CONTEXT" in str(caught.value.hint)
    assert not choice._docker_answers()
