"""What `%npm` takes, what a courier gets to see, and what npm's complaints become."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_guest_js import find_node

from crkernel import npm, npm_host
from crkernel.engines import Limits
from crkernel.engines.local import LocalEngine
from crkernel.errors import BadMagic, UserError
from crkernel.guest.parcel import NotAProject, only_from, pack
from crkernel.javascript import JAVASCRIPT
from crkernel.session import Session

FILE = {"kind": "file", "mode": 0o644, "mtime": 1, "size": 1, "content": "c1.0"}
FOLDER = {"kind": "directory", "mode": 0o755, "mtime": 1}


def link(target: str) -> dict[str, Any]:
    return {"kind": "symlink", "mode": 0o777, "mtime": 1, "target": target}


# -- calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a", "left-pad@1", "@a/b", "@a/b@^1.2", "x@>=1 <2", "x@latest", "x@npm:y@1", "JSONStream"],
)
def test_names_of_packages(name: str) -> None:
    assert npm.parse(["install", name]).words == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "./a",
        "/a",
        "a/b",
        "~",
        "a:b",
        "https://a/b.tgz",
        "git@github.com:a/b",
        "@a",
        "a@b/c",
        "github:a/b",
        "file:a",
        "x@file:../a",
        "x@https://a/b",
        "x@git+ssh://a",
        "@a/../b",
        "a\nb",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadMagic, match="is no package of the registry"):
        npm.parse(["install", name])


def test_short_forms_and_the_line_that_does_the_same() -> None:
    call = npm.parse(["i", "-D", "a@>=1 <2", "--scripts"])
    assert call == npm.Npm("install", ("--save-dev", "a@>=1 <2"), scripts=True)
    assert call.line == "%npm install --save-dev 'a@>=1 <2' --scripts"


def test_completion() -> None:
    assert "install" in npm.candidates("", "")
    assert "--save-dev" in npm.candidates("i a ", "-")
    assert "--save-dev" not in npm.candidates("i --save-dev ", "-")
    assert npm.candidates("ls ", "a") == []


def test_complaints_that_nobody_foresaw_are_passed_on() -> None:
    details = [" code EWHATEVER", " syscall rain", " path /sky", " errno -5"]
    error = npm.explain([*details, " it is raining", " in torrents"], 1)
    assert str(error) == "npm: it is raining"
    assert str(npm.explain([], 7)) == "npm: it ended with 7"


def test_npm_complains_in_the_order_that_is_expected(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # where nobody listens
        registry = f"http://127.0.0.1:{taken.getsockname()[1]}"
        own = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "npm_config_logs_max": "0"}
        own |= {"npm_config_cache": str(tmp_path), "npm_config_fetch_retries": "0"}
        node = Path(find_node())
        tool = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        command = [node, tool, "install", "left-pad", f"--registry={registry}", "--loglevel=http"]
        process = subprocess.run(
            command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )
    lines = process.stderr.splitlines()
    complaint = [line.removeprefix(npm.ERROR) for line in lines if line.startswith(npm.ERROR)]
    assert complaint[:3] == [" code ECONNREFUSED", " syscall connect", " errno ECONNREFUSED"]
    reached = f"the registry {registry} cannot be reached"
    assert str(npm.explain(complaint, 1)) == f"{reached} (ECONNREFUSED)"
    others = [line.replace("ECONNREFUSED", "EWHATEVER") for line in complaint]
    assert str(npm.explain(others, 1)).startswith(
        f"npm: FetchError: request to {registry}/left-pad"
    )
    others = [line.replace("ECONNREFUSED", "EHOSTUNREACH") for line in complaint]
    assert str(npm.explain(others, 1)) == f"{reached} (EHOSTUNREACH)"
    progress = npm.Progress(0)
    assert [line for line in lines if not progress.takes(line)] == [
        line for line in lines if line.startswith(npm.ERROR)
    ]


def test_certificates_that_nobody_vouches_for() -> None:
    code, host = "SELF_SIGNED_CERT_IN_CHAIN", "https://registry.npmjs.org"
    message = f" request to {host}/left-pad failed, reason: self-signed certificate in chain"
    error = npm.explain([f" code {code}", f" errno {code}", message], 1)
    assert str(error) == f"nobody vouches for the certificate of {host} ({code})"
    assert "cafile=FILE" in str(error.hint)


def test_what_npm_is_at_is_one_line_of_calls_that_take_long() -> None:
    progress = npm.Progress(10)
    assert progress.takes("npm http fetch GET 200 https://r/a 5ms (cache miss)")
    assert progress.text(10.9) == progress.end() == ""
    assert progress.text(11.1) == "\rnpm: 1 looked up, 0 fetched"
    assert progress.takes("npm http fetch GET https://r/b attempt 1 failed with ETIMEDOUT")
    assert progress.text(11.2) == ""
    trouble = "\rnpm: 1 looked up, 0 fetched; https://r/b failed (ETIMEDOUT), trying again"
    assert progress.text(11.7) == trouble
    assert progress.takes("npm http fetch GET 200 https://r/a/-/a-1.0.0.tgz 5ms (cache miss)")
    assert progress.text(12.3) == "\rnpm: 1 looked up, 1 fetched".ljust(len(trouble))
    assert not progress.takes("npm warn deprecated a@1.0.0: old")
    assert (progress.end(), progress.end()) == ("\n", "")


# -- the host's settings -----------------------------------------------------------------------


def test_settings_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("authority")
    (tmp_path / ".npmrc").write_text(
        "; a comment = 1\nregistry = https://corp/npm\n@team:registry=https://team/\n"
        f"//corp/npm/:_authToken=${{TOKEN}}\ncafile={tmp_path}/ca.pem\nignore-scripts=false\n"
        "script-shell=/bin/evil\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "TOKEN": "secret",
        "https_proxy": "http://proxy:3128",
        "NPM_CONFIG_STRICT_SSL": "false",
    }
    host = json.loads(npm_host.settings(environment))
    lines = host["npmrc"].splitlines()
    assert "registry=https://corp/npm" in lines
    assert "//corp/npm/:_authToken=secret" in lines
    assert "https-proxy=http://proxy:3128" in lines
    assert "strict-ssl=false" in lines
    assert "cafile=/tmp/host/ca.pem" in lines
    assert not any("script" in line or "comment" in line for line in lines)
    assert host["files"]["ca.pem"] == "authority"
    assert "https://corp/npm/" in host["registries"]
    assert "https://team/" in host["registries"]


# -- what a courier gets -----------------------------------------------------------------------


def test_only_npms_files_are_packed_with_paths_of_their_own() -> None:
    manifest = {
        "": FOLDER,
        "tmp/package.json": FILE,
        "work": FOLDER,
        "work/.npmrc": FILE,
        "work/deep/package.json": FILE,
        "work/package.json": FILE,
        "work/node_modules": FOLDER,
        "work/node_modules/.package-lock.json": FILE,
        "work/node_modules/pipe": {"kind": "fifo", "mode": 0o644, "mtime": 1},
        "work/node_modules/a": FOLDER,
        "work/node_modules/a/b": FILE,
    }
    names = ["", "package.json", "node_modules", "node_modules/a", "node_modules/a/b"]
    assert list(pack(manifest, "work")) == names


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("../a/cli.js", True),
        ("../../package.json", True),
        ("b", True),
        ("../../..", False),
        ("../../../etc/passwd", False),
        ("/etc", False),
        ("x/..", False),
        ("../x/../../..", False),
        ("./..", False),
    ],
)
def test_links_are_packed_if_they_stay_inside(target: str, kept: bool) -> None:
    manifest = {
        "work/node_modules": FOLDER,
        "work/node_modules/.bin": FOLDER,
        "work/node_modules/.bin/a": link(target),
    }
    assert ("node_modules/.bin/a" in pack(manifest, "work")) is kept


def test_hard_links_to_outside_become_copies() -> None:
    def hard(target: str) -> dict[str, Any]:
        return {"kind": "hardlink", "mode": 0o644, "mtime": 1, "target": target}

    manifest = {
        "tmp/x": FILE,
        "work/node_modules": FOLDER,
        "work/node_modules/a": FILE,
        "work/node_modules/b": hard("work/node_modules/a"),
        "work/node_modules/c": hard("tmp/x"),
    }
    packed = pack(manifest, "work")
    assert packed["node_modules/b"]["target"] == "node_modules/a"
    assert packed["node_modules/c"] == FILE


@pytest.mark.parametrize("leaf", ["node_modules", "package.json", "package-lock.json"])
def test_a_link_in_place_of_npms_files_is_refused(leaf: str) -> None:
    with pytest.raises(NotAProject, match=f"{leaf} is no "):
        pack({f"work/{leaf}": link("elsewhere")}, "work")


def test_addresses_in_a_lock_are_the_registrys_or_none() -> None:
    lock = {
        "packages": {
            "a": {"resolved": "https://corp/npm/a.tgz", "integrity": "sha512-x"},
            "b": {"resolved": "https://corp/npm.evil/b.tgz", "integrity": "sha512-y"},
            "c": {"resolved": ["http://127.0.0.1"], "dependencies": {"d": {"resolved": 1}}},
        }
    }
    checked = json.loads(only_from(["https://corp/npm/"], json.dumps(lock)))["packages"]
    assert checked["a"]["resolved"] == "https://corp/npm/a.tgz"
    assert checked["b"] == {"integrity": "sha512-y"}
    assert checked["c"] == {"dependencies": {"d": {}}}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_lock(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        only_from([], text)


# -- engines that give no network ---------------------------------------------------------------


class Secluded(LocalEngine):
    """An engine that has no way out."""

    name = "secluded"
    networks = ("none",)


async def test_an_engine_without_a_way_out_says_which_one_has_it(limits: Limits) -> None:
    session = Session(Secluded(limits), JAVASCRIPT)
    with pytest.raises(UserError, match="the engine secluded gives guests no network") as caught:
        session.change_network("full")
    assert "local" in str(caught.value.hint)
    assert session.engine.network == "none"
