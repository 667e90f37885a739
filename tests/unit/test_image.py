"""The image: its name, what is found of it, what a build leaves behind, and CRIU's shim."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from crkernel import image, image_build, image_fetch, image_host, image_steps, image_tree
from crkernel.errors import EngineError, EngineUnavailable, ImageMissing, NoSpace, UserError
from crkernel.guest import golden_store

OLD = "0123456789ab"


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CRKERNEL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def make_image(digest: str, created: float = 1.0) -> Path:
    path = image.images_dir() / digest
    (path / "etc").mkdir(parents=True)
    (path / image.RECORD).write_text(json.dumps({"size": 4096, "created": created}))
    return path


def partials() -> list[str]:
    return [path.name for path in image.images_dir().glob(".*.partial")]


# Names and places


def test_the_data_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CRKERNEL_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert image.data_home() == tmp_path / ".local/share/crkernel"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert image.data_home() == tmp_path / ".local/share/crkernel"
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert image.data_home() == Path("/elsewhere/crkernel")


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRKERNEL_DATA", "HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(EngineUnavailable, match="neither HOME nor a name") as caught:
        image.data_home()
    assert "set HOME" in str(caught.value.hint)


def test_the_digest_changes_with_recipe_sources_and_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh = image.recipe_digest.__wrapped__
    usual = fresh()
    assert len(usual) == 12
    assert fresh() == usual
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes(image.RECIPE.read_bytes() + b"\n")
    shims = tmp_path / "shim"
    shims.mkdir()
    typings = tmp_path / "generate.mjs"
    typings.write_bytes(image.TYPINGS.read_bytes() + b"\n")
    seen = {usual}
    with monkeypatch.context() as patch:
        patch.setattr(image, "RECIPE", recipe)
        seen.add(fresh())
    with monkeypatch.context() as patch:
        patch.setattr(image, "SHIMS", shims)
        seen.add(fresh())
    with monkeypatch.context() as patch:
        patch.setattr(image, "TYPINGS", typings)
        seen.add(fresh())
    other = "aarch64" if image.architecture() == "x86_64" else "x86_64"
    monkeypatch.setattr("platform.machine", lambda: other)
    seen.add(fresh())
    assert len(seen) == 5


def test_the_recipe_pins_what_it_downloads() -> None:
    recipe = tomllib.loads(image.RECIPE.read_text())
    assert {package.get("arch") for package in recipe["npm"]} == {"x86_64", "aarch64", None}
    assert all(package["integrity"].startswith("sha512-") for package in recipe["npm"])


# What is found


def test_a_missing_image_says_how_to_build_it() -> None:
    assert image.image_path() is None
    with pytest.raises(ImageMissing, match="no sandbox image") as caught:
        image.require_image()
    assert caught.value.hint == "run: crkernel image build"


def test_an_image_of_another_version_is_named() -> None:
    make_image(OLD)
    with pytest.raises(ImageMissing, match="is of another version") as caught:
        image.require_image()
    assert f"needs the image {image.recipe_digest()}; what is there, {OLD}," in caught.value.message
    assert caught.value.hint == "run: crkernel image build"


def test_images_are_listed_newest_first_and_only_finished_ones() -> None:
    make_image(OLD, created=1.0)
    current = make_image(image.recipe_digest(), created=2.0)
    (image.images_dir() / f".{OLD}.1.partial").mkdir()
    (image.images_dir() / "notes").mkdir()
    assert [(i.digest, i.current, i.size) for i in image.images()] == [
        (image.recipe_digest(), True, 4096),
        (OLD, False, 4096),
    ]
    assert image.require_image() == current


# Removal and litter


def test_an_image_is_removed() -> None:
    make_image(OLD)
    image_build.remove(OLD)
    assert image.images() == []
    assert partials() == []


def test_removing_an_unknown_image_is_refused() -> None:
    with pytest.raises(UserError, match="no image"):
        image_build.remove("../../etc")


def test_an_image_in_use_is_not_removed() -> None:
    path = make_image(OLD)
    held = image.hold(path)
    try:
        with pytest.raises(UserError, match="in use"):
            image_build.remove(OLD)
        assert path.is_dir()
    finally:
        os.close(held)
    image_build.remove(OLD)


def test_an_image_that_is_gone_cannot_be_held() -> None:
    with pytest.raises(ImageMissing):
        image.hold(image.images_dir() / OLD)


def test_the_litter_of_a_killed_build_is_swept_but_not_that_of_a_living_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = image.images_dir()
    dead, living, mine = "a" * 12, "b" * 12, image.recipe_digest()
    for digest in (dead, living, mine):
        tree = folder / f".{digest}.999999.partial/root/usr"
        tree.mkdir(parents=True)
        tree.chmod(0o555)
    monkeypatch.setattr(image_build.Build, "run", lambda build: build.root.mkdir())
    with image_build.locked(folder / living, print):
        path = image_build.build(lambda _: None)
    assert path == folder / mine
    assert partials() == [f".{living}.999999.partial"]


def test_trees_with_mounts_are_never_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image_tree, "mounts_in", lambda folder: [f"{folder}/proc"])
    (tmp_path / "tree").mkdir()
    with pytest.raises(EngineError, match="mounted"):
        image_tree.delete(tmp_path / "tree")
    assert (tmp_path / "tree").is_dir()


def test_mounts_are_found_at_and_below_a_folder() -> None:
    assert "/proc" in image_tree.mounts_in(Path("/proc"))
    assert image_tree.mounts_in(Path("/proc/self")) == []


def test_the_tree_becomes_readable_and_loses_set_id_bits(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o700)
    for name, mode in (("program", 0o4700), ("secret", 0o600)):
        (tree / name).write_text("x")
        (tree / name).chmod(mode)
    (tree / "link").symlink_to("/nowhere")
    assert image_tree.normalise(tree) > 0
    modes = {path.name: path.lstat().st_mode & 0o7777 for path in (tree, *tree.glob("[ps]*"))}
    assert modes == {"tree": 0o755, "program": 0o755, "secret": 0o644}


# Building


def test_a_build_is_committed_at_its_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(build: image_build.Build) -> None:
        build.root.mkdir()
        raise EngineError("the network is away")

    monkeypatch.setattr(image_build.Build, "run", fail)
    with pytest.raises(EngineError, match="away"):
        image_build.build(lambda _: None)
    assert image.image_path() is None
    assert partials() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_ended_leaves_nothing(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(build: image_build.Build) -> None:
        build.root.mkdir()
        signal.raise_signal(number)

    monkeypatch.setattr(image_build.Build, "run", end)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as caught:
            image_build.build(lambda _: None)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert caught.value.code == 128 + number
    assert partials() == []


def test_a_build_that_shall_outlive_its_terminal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(build: image_build.Build) -> None:
        signal.raise_signal(signal.SIGHUP)
        build.root.mkdir()

    monkeypatch.setattr(image_build.Build, "run", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert image_build.build(lambda _: None).is_dir()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_current_image_is_not_built_again_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_image(image.recipe_digest()).stat().st_ino
    monkeypatch.setattr(image_build.Build, "run", lambda build: build.root.mkdir())
    said: list[str] = []
    assert image_build.build(said.append).stat().st_ino == old
    assert "up to date" in said[0]
    assert image_build.build(said.append, force=True).stat().st_ino != old
    assert partials() == []


def test_a_forced_build_leaves_the_tree_that_a_kernel_runs_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = image.hold(make_image(image.recipe_digest()))
    monkeypatch.setattr(image_build.Build, "run", lambda build: build.root.mkdir())
    image_build.build(lambda _: None, force=True)
    assert os.stat("etc", dir_fd=held)
    os.close(held)


def test_a_second_build_waits_and_takes_the_first_ones_image() -> None:
    script = (
        "from crkernel import image, image_build\n"
        "import time\n"
        "def run(build):\n"
        "    print('building', flush=True)\n"
        "    time.sleep(0.5)\n"
        "    build.root.mkdir()\n"
        "image_build.Build.run = run\n"
        "image_build.build(lambda line: print(line, flush=True))\n"
    )
    command = [sys.executable, "-c", script]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second,
    ):
        said = [first.communicate(timeout=30)[0], second.communicate(timeout=30)[0]]
    assert sorted("building" in text.splitlines() for text in said) == [False, True]
    waiter = next(text for text in said if "building" not in text.splitlines())
    assert "waiting for it" in waiter
    assert "finished by the other" in waiter


def test_a_criu_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert image.check_criu("Version: 4.2.1\nGitID: v4.2.1\n", "x") == "4.2.1"
    assert image.check_criu("Version: 10.0\n", "x") == "10.0"
    for said in ("Version: 4.1.1\n", "Version: 3.17\n", "no idea"):
        with pytest.raises(EngineUnavailable, match=r"4\.2"):
            image.check_criu(said, "x")

    def old(_: object, command: list[str], stdout: int = subprocess.DEVNULL) -> None:
        if "criu" in command:
            os.write(stdout, b"Version: 4.1.1\n")

    monkeypatch.setattr(image_steps.Steps, "command", old)
    with pytest.raises(EngineUnavailable, match=r"4\.1\.1 is older than 4\.2") as caught:
        image_steps.Steps(tmp_path, print).check()
    assert "suite" in str(caught.value.hint)


# Golden roots


def test_storing_a_golden_root_sweeps_what_the_dead_left(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    for name in (".aaaa.partial", ".cccc.partial", ".aaaa.999999.partial", "dddd", "eeee"):
        (folder / name).mkdir(parents=True)
        (folder / name / "memory").write_bytes(b"half")
    held = os.open(folder / "eeee", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    (tmp_path / "source").write_bytes(b"whole")
    golden_store.store(str(folder), "cccc", ["memory"], [os.open(tmp_path / "source", os.O_RDONLY)])
    os.close(held)
    assert {path.name for path in folder.iterdir()} == {"cccc", "dddd", "eeee"}
    assert (folder / "cccc/memory").read_bytes() == b"whole"


def test_who_stores_the_same_golden_root_at_once_spoils_nothing(tmp_path: Path) -> None:
    folder, names = tmp_path / "golden", ["first", "memory"]
    source = tmp_path / "source"
    source.write_bytes(b"whole" * 200_000)

    def store(_: int) -> None:
        descriptors = [os.open(source, os.O_RDONLY) for _ in names]
        golden_store.store(str(folder), "cccc", names, descriptors)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, range(16)))
    assert [path.name for path in folder.iterdir()] == ["cccc"]
    for name in names:
        assert (folder / "cccc" / name).read_bytes() == source.read_bytes()


def test_a_failed_command_shows_its_last_lines_and_a_remedy() -> None:
    error = image_host.failed("mmdebstrap", ["E: Temporary failure resolving 'deb.debian.org'"])
    assert "Temporary failure" in error.message
    assert "network" in str(error.hint)
    assert isinstance(image_host.failed("tar", ["No space left on device"]), NoSpace)


@pytest.mark.parametrize("written", ["0", "20480"])
def test_who_wrote_half_an_archive_is_named_and_not_who_read_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(bytes(range(256)) * 4096)
    program = tmp_path / "mmdebstrap"
    program.write_text(
        f"#!/bin/sh\ntar -c -C {tmp_path} folder | head -c {written}\n"
        "echo \"E: Temporary failure resolving 'deb.debian.org'\" >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root's has no tar
    with pytest.raises(EngineError, match=r"mmdebstrap failed:\n.*Temporary failure") as caught:
        image_build.Build(tmp_path, print, []).debian()
    assert "network" in str(caught.value.hint)


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="mmdebstrap") as caught:
        image_host.check_host(tmp_path)
    assert "apt-get install mmdebstrap gcc" in str(caught.value.hint)


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without them apt refuses Debian's archive, as another distribution's does by itself."""
    assert f"signed-by={image_host.KEYRING}]" in image_steps.recipe()["debian"]["source"]
    monkeypatch.setattr(image_host, "KEYRING", tmp_path / "none")
    with pytest.raises(EngineError, match="debian-archive-keyring") as caught:
        image_host.check_host(tmp_path)
    assert "apt-get install debian-archive-keyring" in str(caught.value.hint)
    tail = ["E: The repository 'http://deb.debian.org/debian forky InRelease' is not signed."]
    hint = str(image_host.failed("mmdebstrap", tail).hint)
    assert "apt-get install debian-archive-keyring" in hint


def test_lines_of_subordinate_ids_that_are_none_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_bytes(b"me:100000:65536\n\nyou:x:5\n1:2\na:b:c:d\n\xff:1:2\n7:300000:65536")
    assert image_host._subordinate_ids(file) == [
        ("me", 100000, 65536),
        ("\N{REPLACEMENT CHARACTER}", 1, 2),
        ("7", 300000, 65536),
    ]


def test_a_user_without_a_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    with pytest.raises(EngineError, match="user id 987654 has no name") as caught:
        image_host._check_subordinate_ids()
    assert "--engine docker" in str(caught.value.hint)


def test_a_user_without_subordinate_ids_is_told_a_free_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_host, "_subordinate_ids", lambda _: [("other", 100000, 65536)])
    with pytest.raises(EngineError, match="no range") as caught:
        image_host._check_subordinate_ids()
    assert "--add-subuids 165536-231071" in str(caught.value.hint)


# Packages of npm


def tarball(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            member.mode = 0o755 if "/bin/" in name else 0o600
            archive.addfile(member, io.BytesIO(b"hi"))
    return buffer.getvalue()


def test_a_package_is_verified_and_unpacked(tmp_path: Path) -> None:
    data = tarball("package/bin/tool", "package/docs/long.md")
    package = {
        "package": "tool",
        "version": "1.0.0",
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
        "only": ["bin/tool"],
        "into": "/usr/local/lib/tool",
        "links": {"tl": "bin/tool"},
    }
    image_fetch.install_package(package, tmp_path, data)
    link = tmp_path / "usr/local/bin/tl"
    assert str(link.readlink()) == "../lib/tool/bin/tool"
    assert link.stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "usr/local/lib/tool/docs").exists()
    with pytest.raises(EngineError, match="not the file"):
        image_fetch.install_package({**package, "integrity": "sha512-AAAA"}, tmp_path, data)


def test_a_package_cannot_write_outside(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="refused"):
        image_fetch._unpack(tarball("package/../../evil"), tmp_path / "in", set())


def test_a_package_without_what_is_wanted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="missing"):
        image_fetch._unpack(tarball("package/README"), tmp_path, {"bin/node"})


def test_the_registry_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    assert image_fetch.registry() == "https://registry.npmjs.org"
    monkeypatch.setenv("npm_config_registry", "https://mirror.example/npm/")
    assert image_fetch.registry() == "https://mirror.example/npm"


class Registry(BaseHTTPRequestHandler):
    """Promises more than it sends."""

    def do_GET(self) -> None:
        """Answers each request."""
        self.send_response(200)
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", "4000000")
        self.end_headers()
        self.wfile.write(b"ffff\r\n" + b"x" * 1000)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_download_that_breaks_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path, why in (("plain", "it broke off after 0.0 of 4.0 MB"), ("chunked", "Incomplete")):
            address = f"http://127.0.0.1:{server.server_port}/{path}"
            monkeypatch.setenv("npm_config_registry", address)
            with pytest.raises(EngineError, match=f"cannot download {address}/one/.*: {why}"):
                image_fetch.download({"package": "one", "version": "1.0.0"}, print)
        server.shutdown()


def test_a_registry_that_is_no_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "mirror.example/npm")
    with pytest.raises(EngineError, match="is no address: mirror") as caught:
        image_fetch.download({"package": "one", "version": "1.0.0"}, print)
    assert "https://" in str(caught.value.hint)


def test_a_long_download_tells_how_much_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = io.BytesIO(bytes(200_000))
    answer.headers = {"Content-Length": "200000"}  # type: ignore[attr-defined]
    monkeypatch.setattr(image_fetch, "EACH", 0.0)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: answer)
    said: list[str] = []
    data = image_fetch.download({"package": "one", "version": "1.0.0"}, said.append)
    assert len(data) == 200_000
    assert said[0] == f"one: 0.1 of 0.2 MB{image_fetch.FOR_NOW}"


# CRIU's shim

# Puts itself under a seccomp filter that allows everything, as often as its first argument says.
FILTERED = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
code = ctypes.create_string_buffer((6).to_bytes(2, sys.byteorder) + bytes(2)
                                   + (0x7FFF0000).to_bytes(4, sys.byteorder), 8)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(1, ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
for _ in range(int(sys.argv[1])):
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
"""
READ = "print(open(sys.argv[2], 'rb', buffering=0).read(8192).decode())"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shim") / "noseccomp.so"
    source = image.SHIMS / "noseccomp.c"
    subprocess.run(["cc", *image_steps.SHIM_FLAGS, "-o", str(target), str(source)], check=True)
    return target


def read_filtered(path: str | Path, shim: Path | None, filters: int = 1) -> str:
    env = {**os.environ, **({"LD_PRELOAD": str(shim)} if shim else {})}
    command = [sys.executable, "-I", "-S", "-c", FILTERED + READ, str(filters), str(path)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_the_shim_hides_an_inherited_filter(shim: Path) -> None:
    assert "\nSeccomp:\t2\n" in read_filtered("/proc/self/status", None)
    assert "\nSeccomp:\t0\n" in read_filtered("/proc/self/status", shim)


def test_the_shim_shows_a_filter_that_a_task_added_by_itself(shim: Path) -> None:
    waits = FILTERED + "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits, "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as task:
        assert task.stdout is not None
        task.stdout.readline()
        status = f"/proc/{task.pid}/status"
        seen = {filters: read_filtered(status, shim, filters) for filters in (1, 2)}
        task.communicate()
    assert "\nSeccomp:\t2\n" in seen[1]
    assert "\nSeccomp:\t0\n" in seen[2]


def test_the_shim_leaves_files_alone(shim: Path, tmp_path: Path) -> None:
    text = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"
    (tmp_path / "status").write_text(text)
    assert read_filtered(tmp_path / "status", shim).rstrip() == text.rstrip()


def test_the_shim_passes_errors_on(shim: Path) -> None:
    script = "import os\ntry: os.read(0, 1)\nexcept OSError as error: print(error.errno)"
    result = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "$0" <&-', script],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["9"]


# The image that is built on this machine


@pytest.mark.e2e
def test_the_built_image_has_what_a_sandbox_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRKERNEL_DATA")
    path = image.require_image()
    places = ("home/work", "usr/lib/crkernel", "run", "tmp", "proc", "dev/shm", "dev/pts")
    assert all((path / place).is_dir() for place in places)
    assert not (path / image.NOSECCOMP.lstrip("/")).is_symlink()
    versions = {
        program: subprocess.run(
            [*image.enter_command(path), *program.split()],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for program in ("node --version", "npm --version", "criu --version")
    }
    assert versions["node --version"].startswith("v24.")
    assert "Version: 4." in versions["criu --version"]
    assert (path / "etc/passwd").read_text().startswith("root:x:0:0:")
