"""`%npm`: packages come from outside, into the timeline, and nothing else comes along."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _driver import eventually, python
from driver import Kernel
from registry import Registry

pytestmark = pytest.mark.e2e

_FS = "require('node:fs')"
_TOKEN = "npm_tokenthatnoguestmaysee"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """With a few packages, some of them not well meant."""
    registry = Registry()
    registry.publish("one", "1.0.0", {"index.js": "module.exports = 'one 1'"})
    registry.publish("one", "2.0.0", {"index.js": "module.exports = 'one 2'"})
    registry.publish("slow", "1.0.0", {"index.js": ""})
    registry.publish(
        "tool", "1.0.0", {"cli.js": "#!/usr/bin/env node\nconsole.log('tool')"}, bin="cli.js"
    )
    registry.publish(
        "needy", "1.0.0", {"index.js": "module.exports = require('one')"}, dependencies={"one": "1"}
    )
    scripts = {"preinstall": "echo pre > /home/work/ran", "postinstall": "node build.js"}
    build = "require('fs').writeFileSync('built.js', 'module.exports = ' + process.pid)"
    registry.publish("scripted", "1.0.0", {"build.js": build}, scripts=scripts, main="built.js")
    stray = {"../../../../tmp/stray": "x", "link": "-> /etc", "link/stray": "x", "index.js": ""}
    registry.publish("stray", "1.0.0", stray)
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def guest(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel whose host has npm set to our registry, with a login there."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "npmrc").write_text(
        f"registry={registry.url}\n//{registry.url.removeprefix('http://')}:_authToken={_TOKEN}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_userconfig", str(folder / "npmrc"))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        kernel = Kernel(folder / "kernel.log")
        yield kernel
        kernel.close()


@pytest.fixture
def npm(guest: Kernel) -> Kernel:
    """It, with a fresh guest."""
    guest.ok("%reset")
    return guest


def files(kernel: Kernel, folder: str = "/home/work") -> list[str]:
    """The names in a folder of the guest."""
    return list(kernel.value(f"{_FS}.readdirSync({json.dumps(folder)}).sort()"))


# -- what it is for ----------------------------------------------------------------------------


def test_a_package_can_be_used_at_once_even_after_it_was_missing(npm: Kernel) -> None:
    npm.fails("require('one')")
    npm.fails("await import('one')")
    result = npm.ok("%npm install one@1")
    assert "added 1 package" in result.stdout
    assert npm.value("require('one')") == "one 1"
    assert npm.value("(await import('one')).default") == "one 1"
    assert npm.ok("import one from 'one'; one").text == "'one 1'"
    assert files(npm) == ["node_modules", "package-lock.json", "package.json"]
    assert npm.value("require('./package.json').dependencies") == {"one": "^1.0.0"}
    assert "one@1.0.0" in npm.ok("%npm ls").stdout


def test_it_is_a_cell_of_the_timeline(npm: Kernel) -> None:
    installed = npm.ok("%npm install needy --save-dev").count
    assert "%npm install needy --save-dev" in npm.row(installed)
    npm.ok("globalThis.x = require('needy')")
    npm.ok("%undo")
    assert files(npm, "node_modules") == [".package-lock.json", "needy", "one"]
    npm.rewind(f"before {installed}")
    assert files(npm) == []
    npm.rewind(installed)
    assert npm.value("require('needy')") == "one 1"
    npm.ok("%npm uninstall needy")
    assert files(npm, "node_modules") == [".package-lock.json"]
    npm.ok(f"%rerun {installed}..{installed}")
    assert npm.value("require('needy')") == "one 1"
    result = npm.ok(f"%%rerun {installed}..{installed}\n// the other one\n%npm install one@1")
    assert "%npm install one@1" in npm.row(result.count)
    assert files(npm, "node_modules") == [".package-lock.json", "one"]


def test_what_only_shows_makes_no_checkpoint(npm: Kernel) -> None:
    npm.ok("%npm install one@1")
    before = npm.ok("%timeline").shown.count("%npm")
    npm.ok("%npm ls --all")
    assert "2.0.0" in npm.ok("%npm outdated").stdout
    assert "one" in npm.ok("%npm view one").stdout
    assert "up to date" in npm.ok("%npm install one@1").stdout
    assert npm.ok("%timeline").shown.count("%npm") == before


def test_a_program_of_a_package_runs(npm: Kernel) -> None:
    npm.ok("%npm install tool")
    assert npm.value("require('child_process').execSync('tool').toString()") == "tool\n"


def test_what_runs_from_an_untouched_package_can_still_be_checkpointed(npm: Kernel) -> None:
    npm.ok(
        "%npm install one tool\n"
        f"{_FS}.copyFileSync(process.execPath, 'node_modules/tool/sleeper');"
        f"{_FS}.linkSync('node_modules/tool/sleeper', 'node_modules/one/linked');"
        "globalThis.child = require('child_process').spawn('node_modules/tool/sleeper',"
        " ['-e', 'process.stdin.resume()']); await new Promise((r) => child.on('spawn', r))"
    )
    npm.ok("%npm install needy")
    assert npm.ok("%npm uninstall needy").stderr == ""
    npm.ok("%undo")
    assert npm.value("child.exitCode") is None


def test_magics_and_code_in_one_cell(npm: Kernel) -> None:
    assert npm.ok("%npm i one@2\nrequire('one')").text == "'one 2'"


def test_subcommands_are_completed(npm: Kernel) -> None:
    reply = npm.client.complete("%npm un", reply=True, timeout=10)["content"]
    assert reply["matches"] == ["uninstall"]
    reply = npm.client.complete("%npm i one --save-d", reply=True, timeout=10)["content"]
    assert reply["matches"] == ["--save-dev"]


_GHOST = "exec 3>/tmp/g; rm /tmp/g; head -c 70000000 /dev/zero >&3; sleep 1234 >/dev/null 2>&1 &"
"""Leaves a daemon with which CRIU refuses."""


def test_packages_go_with_the_last_state_that_needs_them(npm: Kernel, registry: Registry) -> None:
    index = {"index.js": "module.exports = 1"}
    registry.publish("heavy", "1.0.0", index | {"data": "x" * (30 << 20)})
    registry.publish("heavy", "2.0.0", index, scripts={"install": _GHOST})
    older = npm.ok("globalThis.x = 1").count
    npm.ok("x = 2")
    installed = npm.ok("%npm install heavy@1").count
    npm.ok("%undo")
    freed = npm.ok(f"%forget {installed}").shown.split("dropped, ")[1]
    assert int(freed.split()[0]) >= 30
    assert "still open" in npm.ok("%npm install heavy@2 --scripts\n%timeline").shown
    npm.ok(f"%forget {older}")  # what the guest has by now is in no checkpoint
    npm.ok("require('child_process').execSync('pkill sleep')")
    kept = npm.ok("x = 3").count
    npm.rewind(kept)
    assert npm.value("require('heavy')") == 1


# -- scripts -----------------------------------------------------------------------------------


def test_install_scripts_run_only_if_asked_for_and_then_in_the_guest(npm: Kernel) -> None:
    npm.ok("%npm install scripted")
    assert "ran" not in files(npm)
    npm.fails("require('scripted')")
    result = npm.ok("%npm install scripted --scripts")
    assert "postinstall" in result.stdout
    assert "ran" in files(npm)
    assert npm.value("require('scripted')") >= 3000  # a process id of the guest's
    assert "--scripts" in npm.row(result.count)


def test_an_interrupt_ends_a_script_and_the_package_stays(npm: Kernel, registry: Registry) -> None:
    scripts = {"install": "echo begun; exec sleep 60"}
    registry.publish("endless", "1.0.0", {"index.js": "module.exports = 1"}, scripts=scripts)
    running = npm.submit("%npm install endless --scripts")
    npm.messages_until(running, "stream", "begun")
    npm.interrupt()
    npm.finish(running)
    assert running.status == "error"
    assert npm.value("require('endless')") == 1


def test_scripts_of_the_guests_own_package_do_not_run(npm: Kernel) -> None:
    package = {"scripts": {"preinstall": "echo x > /home/work/ran", "prepare": "exit 3"}}
    npm.ok(f"{_FS}.writeFileSync('package.json', {json.dumps(json.dumps(package))})")
    npm.ok("%npm install one")
    assert "ran" not in files(npm)


# -- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("install no-such-thing", "NpmFailed: no-such-thing is not in the registry"),
        ("install one@7", "NpmFailed: No matching version found for one@7"),
        ("install ../one", "BadMagic: '../one' is no package of the registry"),
        ("install https://example.com/x.tgz", "is no package of the registry"),
        ("install git+ssh://x/y", "is no package of the registry"),
        ("install one --ignore-scripts=false", "BadMagic: %npm install has no --ignore-scripts"),
        ("instal one", "BadMagic: %npm has no instal; did you mean install?"),
        ("run build", "BadMagic: %npm has no run: programs run in the guest"),
        ("", "BadMagic: %npm needs a command"),
        ("uninstall", "BadMagic: %npm uninstall needs a package"),
        ("view 'a b", "BadMagic: %npm: a quotation is not closed"),
    ],
)
def test_what_cannot_be_is_told_in_two_lines(npm: Kernel, call: str, words: str) -> None:
    result = npm.fails(f"%npm {call}")
    assert words in result.error
    assert len(result.traceback.splitlines()) <= 2
    assert files(npm) == []


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_registry", "http://127.0.0.1:1/")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        kernel = Kernel(tmp_path / "kernel.log")
    try:
        result = kernel.fails("%npm install one")
        assert "the registry http://127.0.0.1:1 cannot be reached (ECONNREFUSED)" in result.error
        assert len(result.traceback.splitlines()) == 2
    finally:
        kernel.close()


def test_a_disk_that_is_too_small(npm: Kernel, registry: Registry) -> None:
    registry.publish("big", "1.0.0", {"data": "x" * (4 << 20)})
    npm.ok("%config disk_size = 2M\n%reset")
    try:
        result = npm.fails("%npm install big")
        assert "do not fit" in result.error
        assert "disk_size" in result.traceback
        assert files(npm) == []
    finally:
        npm.ok("%config disk_size = 2G\n%reset")


def test_an_interrupt_ends_npm_and_leaves_all_as_it_was(npm: Kernel, registry: Registry) -> None:
    npm.ok("%npm install one@1\nglobalThis.x = 1")
    registry.go_on.clear()
    running = npm.submit("%npm install slow one@2")
    assert eventually(lambda: any(path == "/slow" for path, _ in registry.requests), 15)
    npm.interrupt()
    assert "interrupted" in npm.finish(running).error
    registry.go_on.set()
    assert npm.value("[x, require('one')]") == [1, "one 1"]
    assert files(npm, "node_modules") == [".package-lock.json", "one"]


def test_a_call_that_takes_long_tells_what_it_is_at(npm: Kernel, registry: Registry) -> None:
    registry.go_on.clear()
    running = npm.submit("%npm install slow")
    assert eventually(lambda: any(path == "/slow" for path, _ in registry.requests), 15)
    time.sleep(1)  # what takes less is not told
    registry.go_on.set()
    done = npm.finish(running)
    assert re.match(r"(\rnpm: \d looked up, \d fetched)+\n", done.stdout), done
    assert "added 1 package" in done.stdout
    assert done.stderr == ""


# -- a hostile guest, hostile packages ---------------------------------------------------------


def test_no_token_is_in_reach_of_the_guest(npm: Kernel, registry: Registry) -> None:
    registry.requests.clear()
    npm.ok("%npm install one@2 needy")
    assert any(token == f"Bearer {_TOKEN}" for _, token in registry.requests)
    program = "found = os.popen(f'grep -rlsI npm_{name} /home /tmp /run /etc').read()"
    assert python(npm, f"name = 'token'\n{program}") == ""


@pytest.mark.parametrize("leaf", ["node_modules", "package.json", "package-lock.json"])
@pytest.mark.parametrize("target", ["/etc", "/proc/self/environ", "/tmp/away"])
def test_links_in_place_of_npms_files_lead_nowhere(npm: Kernel, leaf: str, target: str) -> None:
    npm.ok(f"{_FS}.mkdirSync('/tmp/away'); {_FS}.symlinkSync('{target}', '{leaf}')")
    assert f"{leaf} is no " in npm.fails("%npm install one").error
    assert files(npm, "/tmp/away") == []


def test_links_in_node_modules_lead_nowhere(npm: Kernel) -> None:
    npm.ok(
        f"{_FS}.mkdirSync('/tmp/away'); {_FS}.mkdirSync('node_modules');"
        f"{_FS}.symlinkSync('/tmp/away', 'node_modules/one');"
        f"{_FS}.symlinkSync('../../../tmp/away', 'node_modules/needy');"
        f"{_FS}.symlinkSync('/run/npm', 'node_modules/.bin')"
    )
    npm.ok("%npm install needy")
    assert npm.value("require('needy')") == "one 1"
    assert files(npm, "/tmp/away") == []


def test_addresses_of_the_guest_are_not_asked(npm: Kernel) -> None:
    """Neither those in place of versions, nor those that a lock names for a package."""
    other = Registry()
    try:
        other.publish("one", "1.0.0", {"index.js": "module.exports = 'not one'"})
        npm.ok("%npm install one@1")
        npm.ok(
            "{ const lock = JSON.parse(" + _FS + ".readFileSync('package-lock.json'));"
            f" lock.packages['node_modules/one'].resolved = '{other.url}one/-/1.0.0.tgz';"
            " delete lock.packages['node_modules/one'].integrity;"
            f" {_FS}.writeFileSync('package-lock.json', JSON.stringify(lock));"
            f" {_FS}.rmSync('node_modules', {{ recursive: true }});"
            f" {_FS}.writeFileSync('.npmrc', 'registry={other.url}') }}"
        )
        npm.ok("%npm install")
        assert npm.value("require('one')") == "one 1"
        package = {"dependencies": {"two": f"{other.url}one/-/1.0.0.tgz"}}
        npm.ok(f"{_FS}.writeFileSync('package.json', {json.dumps(json.dumps(package))})")
        assert "package.json names an address" in npm.fails("%npm install one").error
        assert other.requests == []
    finally:
        other.close()


def test_archives_cannot_write_elsewhere(npm: Kernel) -> None:
    npm.ok("%npm install stray")
    assert files(npm, "/tmp") == []
    assert "stray" not in files(npm, "/etc")
    kinds = "(path) => require('fs').lstatSync('node_modules/stray/' + path).isSymbolicLink()"
    assert npm.value(f"{_FS}.readdirSync('node_modules/stray').some({kinds})") is False


def test_a_swap_for_a_link_meanwhile_leads_nowhere(npm: Kernel) -> None:
    npm.ok("%npm install one@1")
    npm.ok(
        f"{_FS}.mkdirSync('/tmp/away'); {_FS}.symlinkSync('/tmp/away', '/tmp/link');"
        "globalThis.racer = require('child_process').spawn('python3', ['-c', `"
        "import ctypes\nlibc = ctypes.CDLL(None)\nwhile True:\n"
        "    libc.renameat2(-100, b'/tmp/link', -100, b'/home/work/node_modules', 2)"
        "`]); 0"
    )
    npm.run("%npm install one@2 needy")  # which may work or not
    npm.run("%npm uninstall needy")
    npm.ok("racer.kill()")
    names = npm.value(
        f"[...{_FS}.readdirSync('/tmp/away'), ...{_FS}.readdirSync('/tmp'),"
        f" ...{_FS}.readdirSync('/home/work')]"
    )
    known = {"away", "link", "node_modules", "package.json", "package-lock.json"}
    assert set(names) <= known


def test_two_kernels_share_the_cache(npm: Kernel, registry: Registry, tmp_path: Path) -> None:
    npm.ok("%npm install tool")
    registry.requests.clear()
    with pytest.MonkeyPatch.context() as patch:
        folder = npm.log.parent
        patch.setenv("npm_config_userconfig", str(folder / "npmrc"))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        other = Kernel(tmp_path / "kernel.log")
    try:
        beside = npm.submit("%npm install needy")
        other.ok("%npm install tool --prefer-offline")
        assert npm.finish(beside).status == "ok"
        assert not any(path.endswith("tool/-/1.0.0.tgz") for path, _ in registry.requests)
    finally:
        other.close()
