"""The kernel of an ordinary account: no root, no capability, no set-uid helper anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _driver import open_up
from driver import require_network

from crkernel import image

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.local_only("who may use Docker is up to its daemon"),
]

if os.geteuid() != 0:
    pytest.skip("all tests are run by an ordinary user already", allow_module_level=True)

_ACCOUNT = 54321
"""A user and group id that need not exist by name."""

_AS_ACCOUNT = [
    "setpriv",
    f"--reuid={_ACCOUNT}",
    f"--regid={_ACCOUNT}",
    "--clear-groups",
    "--bounding-set=-all",
    "--no-new-privs",
]

_SESSION = """
import json, os, sys
from pathlib import Path
from _driver import descendants, eventually, guest_of, status
from driver import Kernel

kernel = Kernel(Path.home() / "kernel.log")
fs = "process.getBuiltinModule('fs')"
kernel.ok(f"let x = 1, ticks = 0; {fs}.writeFileSync('f', 'one')")
kernel.ok(f"x = 2; {fs}.writeFileSync('f', 'two'); setInterval(() => ticks++, 5); 0")
kernel.rewind(1)
found = {
    "account": os.getuid(),
    "capabilities": status(os.getpid())["CapEff"] + status(os.getpid())["CapBnd"],
    "first": kernel.value(f"[x, {fs}.readFileSync('f', 'utf8')]"),
}
kernel.rewind(2)
kernel.until("ticks > 2")
found["second"] = kernel.value(f"[x, {fs}.readFileSync('f', 'utf8')]")
found["death"] = kernel.fails("process.exit(3)").error
found["after"] = kernel.value("x")
found["guest"] = sorted({int(word) for word in status(guest_of(kernel))["Uid"].split()})
found["inside"] = kernel.value("process.getuid()")
processes = descendants(kernel.pid)
kernel.close()
found["gone"] = eventually(lambda: not any(os.path.exists(f"/proc/{p}") for p in processes), 3)
json.dump(found, sys.stdout)
"""


_PACKAGES = """
import json, os, sys
from pathlib import Path
from driver import Kernel
from registry import Registry

registry = Registry()
registry.publish("one", "1.0.0", {"index.js": "module.exports = 'one'"})
os.environ["npm_config_registry"] = registry.url
kernel = Kernel(Path.home() / "kernel.log", "--CRKernel.network=full")
kernel.ok("%npm install one")
cache = Path.home() / ".cache/crkernel/npm"
found = {
    "one": kernel.value("require('one')"),
    "owners": sorted({path.stat().st_uid for path in cache.rglob("*")}),
    "closed": oct(cache.parent.stat().st_mode & 0o777),
    "network": kernel.value("Object.keys(require('node:os').networkInterfaces())"),
}
kernel.close()
registry.close()
json.dump(found, sys.stdout)
"""


_POOL = """
import asyncio, json, os, sys
from pathlib import Path
from _driver import eventually
from crkernel.engines import local_pool
from driver import Kernel

os.environ["XDG_RUNTIME_DIR"] = str(Path.home())
waiting = lambda: asyncio.run(local_pool.listed())
pool = ("--CRKernel.pool=1", "--CRKernel.network=full") if NETWORK else ("--CRKernel.pool=1",)
first = Kernel(Path.home() / "first.log", *pool)
first.ok("1")
eventually(waiting, 20)
second = Kernel(Path.home() / "second.log", *pool)
second.ok("let x = 1")
found = {
    "value": second.value("x"),
    "status": second.ok("%status").shown,
    "network": len(second.value("Object.keys(require('node:os').networkInterfaces())")),
    "mode": oct((Path.home() / "crkernel").stat().st_mode & 0o777),
}
for kernel in (first, second):
    kernel.close()
asyncio.run(local_pool.empty())
found["left"] = os.listdir(Path.home() / "crkernel")
json.dump(found, sys.stdout)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """The account's own folder, where it can get to."""
    folder = Path(tempfile.mkdtemp(prefix="crkernel-test-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "home").mkdir()
    os.chown(folder / "home", _ACCOUNT, _ACCOUNT)
    (folder / "keep").mkdir()
    yield folder
    shutil.rmtree(folder)


def as_account(home: Path, program: str) -> Any:
    """Run a Python program as the account; the JSON that it prints."""
    if subprocess.run([*_AS_ACCOUNT, "unshare", "-Ur", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets root alone make user namespaces")
    tests = Path(__file__).parents[1]
    outermost: list[Path] = []
    for path in (Path(sys.prefix), Path(sys.base_prefix), tests.parent, image.data_home()):
        if not any(path.is_relative_to(other) for other in outermost):
            outermost.append(path)
    script = [
        "set -eu",
        *open_up(outermost, home / "keep"),
        f"cd {home / 'home'}",
        'exec "$@"',
    ]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home / "home"),
        "USER": "somebody",
        "CRKERNEL_DATA": str(image.data_home()),
        "PYTHONPATH": f"{tests}:{tests / 'e2e'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(script), "sh"]
    done = subprocess.run(
        [*command, *_AS_ACCOUNT, sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_ordinary_account_has_all_of_it(home: Path) -> None:
    found = as_account(home, _SESSION)
    death = found.pop("death")
    assert "exited with code 3" in death
    assert "checkpoint 2" in death or "is restored" in death
    assert found == {
        "account": _ACCOUNT,
        "capabilities": "0" * 32,
        "first": [1, "one"],
        "second": [2, "two"],
        "after": 2,
        "guest": [_ACCOUNT],
        "inside": 0,
        "gone": True,
    }


def test_packages_and_a_network_take_no_more_than_that(home: Path) -> None:
    require_network()
    assert as_account(home, _PACKAGES) == {
        "one": "one",
        "owners": [_ACCOUNT],
        "closed": "0o700",
        "network": ["lo", "tap0"],
    }


@pytest.mark.parametrize("network", [False, True])
def test_its_kernels_have_a_pool(home: Path, network: bool) -> None:
    if network:
        require_network()
    found = as_account(home, f"NETWORK = {network}\n{_POOL}")
    assert found["value"] == 1
    assert "warm: a nest with a guest had waited" in found["status"]
    assert found["network"] == 1 + network
    assert found["mode"] == "0o700"
    assert found["left"] == []
