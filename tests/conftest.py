"""Fixtures of all tests: kernels with a client, and sessions without Jupyter around them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import driver
import pytest
from driver import Kernel
from xdist.scheduler import LoadGroupScheduling

from crkernel import image
from crkernel.engines import Limits
from crkernel.guest import golden_store

_CELLS = 60
"""A shared kernel is replaced after so many cells, so that its checkpoints stay small in memory."""
_OTHERS = {
    "local": ("docker",),
    "docker": ("local_only",),
    "fake": ("docker", "local_only", "real", "e2e"),
}
"""The markers of tests that an engine cannot run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Contract and end-to-end tests are the same for all engines; a run is of one."""
    parser.addoption(
        "--engine",
        choices=("local", "docker", "fake"),
        default="local",
        help="where sandboxes run; docker needs a daemon with the image, fake has no processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Which kernel tests start."""
    driver.engine = config.getoption("--engine")


def pytest_report_header() -> str:
    """Results of two runs can be told apart."""
    return f"engine: {driver.engine}"


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is of another engine alone; `alone` come last, and all to one worker."""
    others = _OTHERS[driver.engine]
    left_out = [item for item in items if any(map(item.get_closest_marker, others))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=_is_alone)
    for item in filter(_is_alone, items):
        item.add_marker(pytest.mark.xdist_group("alone"))


def _is_alone(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("alone")
    return marker is not None and driver.engine in (marker.args or (driver.engine,))


class _ByModule(LoadGroupScheduling):
    """A module goes to one worker, so that its tests share what it starts."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByModule:
    """How tests are given to workers."""
    return _ByModule(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """One more for two processors: a test, which waits a lot, takes two thirds of one."""
    return 3 * len(os.sched_getaffinity(0)) // 2


class _Shared:
    """The kernel that the tests of one module share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self.kernel: Kernel | None = None

    def fresh(self) -> Kernel:
        """The kernel, in the state of a guest that has run nothing."""
        kernel = self.kernel
        if kernel is not None and kernel.cells < _CELLS and kernel.manager.is_alive():
            kernel.client.session.session = secrets.token_hex()  # it has asked for nothing yet
            kernel.ok("%reset")
            return kernel
        self.close()
        self._started += 1
        self.kernel = Kernel(self._folder / f"kernel-{self._started}.log")
        return self.kernel

    def close(self) -> None:
        """Shut it down if there is one."""
        kernel, self.kernel = self.kernel, None
        if kernel is not None:
            kernel.close()


@pytest.fixture(scope="session", autouse=True)
def _company(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[BinaryIO | None]:
    """A lock that all workers share while they have tests."""
    if worker_id == "master":
        yield None
        return
    with (tmp_path_factory.getbasetemp().parent / "company").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest, _company: BinaryIO | None) -> None:
    """Who has to be alone waits until the others have had their last test."""
    if _company is not None and _is_alone(request.node):
        assert request.node.nodeid.endswith("@alone"), "xdist does not see the group"
        fcntl.flock(_company, fcntl.LOCK_EX)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the tests' kernels keep their history, so that the user's has none of it."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def own_golden_root() -> Iterator[None]:
    """One that the module may damage while others start from theirs, in an image of links to the
    files of the real one. The containers of a Docker daemon have but one, which others may have
    pushed out: there it is alone."""
    if driver.engine != "local":
        subprocess.run(["crkernel", "image", "build", "--engine", driver.engine], check=True)
        yield
        return
    real = image.require_image()
    where = image.data_home().parent  # where links can be made
    with (
        tempfile.TemporaryDirectory(prefix="crkernel-tests-", dir=where) as home,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("CRKERNEL_DATA", home)
        Path(home).chmod(0o755)  # nests of root's are other users
        own = image.images_dir() / real.name
        own.mkdir(parents=True)
        # A golden root's files may not be linked, which changes the time of change that they have.
        linked = [entry for entry in real.iterdir() if entry.name != "golden"]
        subprocess.run(["cp", "--archive", "--link", *linked, own], check=True)
        for root in (real / "golden").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just been pushed out
                files = sorted(root.iterdir())
                opened = [os.open(file, os.O_RDONLY) for file in files]
                golden_store.store(str(own / "golden"), root.name, [f.name for f in files], opened)
        yield


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Shared]:
    shared = _Shared(tmp_path_factory.mktemp("kernel"))
    yield shared
    shared.close()


@pytest.fixture
def kernel(_shared: _Shared, request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A kernel with a fresh guest; its timeline may hold what earlier tests of the module did."""
    shared = _shared.fresh()
    yield shared
    failed = getattr(request.node, "failed", False)
    if failed:
        _shared.close()  # whatever state it is in, the next test shall not see it


@pytest.fixture
def steps(kernel: Kernel) -> list[int]:
    """Three cells that make x 1, 2 and 3; the execution counts of them."""
    return [kernel.ok(f"globalThis.x = {n}").count for n in (1, 2, 3)]


@pytest.fixture
def fresh_kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel of this test alone, whose first cell is In [1]."""
    kernel = Kernel(tmp_path / "kernel.log")
    yield kernel
    kernel.close()


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """Starts kernels with command line arguments; all are shut down after the test."""
    started: list[Kernel] = []

    def start(*arguments: str) -> Kernel:
        started.append(Kernel(tmp_path / f"kernel-{len(started)}.log", *arguments))
        return started[-1]

    yield start
    for kernel in started:
        kernel.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Lets fixtures know whether their test failed."""
    report = yield
    if report.when == "call" and report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report


@pytest.fixture
def limits() -> Limits:
    """Small, so that tests are good neighbours."""
    return Limits(
        memory=2 << 30,
        max_processes=256,
        file_size=1 << 30,
        disk_size=1 << 30,
        staging_size=2 << 30,
    )


@pytest.fixture
async def session(limits: Limits) -> AsyncIterator[Any]:
    """A started `crkernel.session.Session`."""
    from crkernel.javascript import JAVASCRIPT
    from crkernel.session import Session

    session = Session(driver.open_engine(limits), JAVASCRIPT)
    await session.start()
    yield session
    await session.close()
