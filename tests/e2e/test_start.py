"""The nest that is started ahead of its kernel: taken if it is as wanted, else not left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import pytest
from driver import SECONDS, Kernel

from crkernel.engines import Limits, nest_process, open_engine
from crkernel.engines.local import LocalEngine
from crkernel.errors import EngineUnavailable

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.local_only("in Docker no nest starts ahead of its kernel"),
]


def nests() -> list[int]:
    """Process ids of this process's nests; it has no other children."""
    return [child.pid for child in psutil.Process().children()]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    assert nests() == []
    yield
    nest_process.drop_ahead()
    assert nests() == []


async def test_the_engine_takes_it() -> None:
    nest_process.start_ahead(["-f", "connection.json", "--CRKernel.engine=local"])
    ahead = nests()
    assert len(ahead) == 1
    engine = LocalEngine(Limits.default())
    await engine.start()
    assert nests() == ahead
    await engine.close()


async def test_with_other_limits_it_is_not_taken() -> None:
    nest_process.start_ahead([])
    ahead = nests()
    engine = LocalEngine(replace(Limits.default(), staging_size=64 << 20))
    await engine.start()
    assert len(nests()) == 1
    assert nests() != ahead
    assert (await engine.status())["staging size"] == 64 << 20
    await engine.close()


async def test_one_that_died_is_replaced_by_the_next_start() -> None:
    nest_process.start_ahead([])
    psutil.Process(*nests()).kill()
    engine = LocalEngine(Limits.default())
    with pytest.raises(EngineUnavailable, match="no sandbox can be made here"):
        await engine.start()
    await engine.start()
    assert len(nests()) == 1
    await engine.close()


@pytest.mark.parametrize(
    "argument",
    ["--CRKernel.engine=docker", "--CRKernel.engine=localhost", "--CRKernel.staging_size=1G"],
)
def test_there_is_none_where_another_one_is_wanted(argument: str) -> None:
    nest_process.start_ahead(["-f", "connection.json", argument])
    assert nests() == []


def test_another_engine_ends_it() -> None:
    nest_process.start_ahead([])
    open_engine("docker", Limits.default())
    assert nests() == []


def test_a_kernel_has_one_nest_and_after_a_restart_the_one_before(
    start_kernel: Callable[..., Kernel],
) -> None:
    kernel = start_kernel()
    kernel.ok("let x = 1")
    assert len(psutil.Process(kernel.pid).children()) == 1
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=SECONDS)
    kernel.rewind("r1.1")
    assert kernel.ok("x").text == "1"
    assert psutil.Process(kernel.pid).children() == []
