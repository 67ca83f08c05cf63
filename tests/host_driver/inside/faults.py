"""A GPU that fails: our errors, not CUDA's, and a close that lets go of all it can."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from artefacts.errors import UnsupportedError
from engines.cuda.memory import live_buffers
from engines.engine import Engine
from tests.host_driver.control import ILLEGAL_ADDRESS, LAUNCH_FAILED, OUT_OF_MEMORY, HostDriver
from tests.host_driver.plans import doubling, engine, on_gpu, rows, runner


@pytest.fixture
def made(rng: np.random.Generator) -> Iterator[Engine]:
    """An engine that has captured a shape."""
    found = engine(runner())
    for _ in range(3):
        found({"input": rows(rng, 2)})
    yield found
    found.close()


@pytest.mark.parametrize("error", [ILLEGAL_ADDRESS, LAUNCH_FAILED])
@pytest.mark.parametrize("batch", [2, 5])
def test_an_error_that_stays(
    made: Engine, rng: np.random.Generator, driver: HostDriver, error: int, batch: int
) -> None:
    """By a graph (two rows) and without one: every call says it, and close leaves nothing."""
    lent = made({"input": rows(rng, 2)}, copy=False, on_device=True)["output"]
    driver.fail("cuStreamSynchronize", error)
    for _ in range(3):
        with pytest.raises(UnsupportedError, match=f"GPU 0 .*CUDA error {error}.*restart the proc"):
            made({"input": rows(rng, batch)})
        with pytest.raises(UnsupportedError, match="GPU 0"):
            made.device_times({"input": rows(rng, batch)})
    made.close()
    del lent
    gc.collect()
    assert live_buffers() == 0


@pytest.mark.parametrize(
    "function",
    [
        *("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"),
        *("cuEventCreate", "cuEventRecord", "cuEventElapsedTime"),
    ],
)
def test_an_error_that_passes(
    made: Engine, rng: np.random.Generator, driver: HostDriver, function: str
) -> None:
    driver.fail(function, OUT_OF_MEMORY)
    with pytest.raises(UnsupportedError, match="GPU 0 has no memory left to"):
        made.device_times({"input": rows(rng, 2)})
    x = rows(rng, 2)
    assert (made({"input": x})["output"] == 2 * x).all()


def test_a_graph_that_cannot_be_launched(
    made: Engine, rng: np.random.Generator, driver: HostDriver
) -> None:
    driver.fail("cuGraphLaunch", OUT_OF_MEMORY)
    with pytest.raises(UnsupportedError, match="a CUDA graph cannot be launched on GPU 0"):
        made({"input": rows(rng, 2)})
    x = rows(rng, 2)
    assert (made({"input": x})["output"] == 2 * x).all()


@pytest.mark.parametrize(
    ("function", "call"), [("cuStreamCreate", 1), ("cuMemAlloc_v2", 1), ("cuCtxPushCurrent_v2", 1)]
)
def test_an_engine_that_cannot_be_made(driver: HostDriver, function: str, call: int) -> None:
    driver.fail(function, OUT_OF_MEMORY, call=call, times=2)
    with pytest.raises(UnsupportedError, match="GPU"):
        runner()
    driver.reset()
    runner().close()


def test_a_kernel_that_touches_freed_memory_is_found(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    """The driver itself: what the other tests rely on."""
    execute = doubling()["IExecutionContext.execute_async_v3"]

    def enqueue(context: object, stream: int) -> bool:
        context.values["input"] += 1 << 20  # type: ignore[attr-defined]
        return bool(execute(context, stream))

    made = engine(runner(IExecutionContext__execute_async_v3=enqueue))
    with pytest.raises(UnsupportedError, match=f"CUDA error {ILLEGAL_ADDRESS}"):
        made({"input": rows(rng, 2)})
    assert "not, or no longer, allocated" in driver.complaint()
    made.close()
    driver.reset()


def test_a_borrowed_tensor_is_given_back_by_errors(
    made: Engine, rng: np.random.Generator, driver: HostDriver
) -> None:
    tensor = on_gpu(rows(rng, 2), offset_bytes=4)
    driver.fail("cuMemcpyDtoDAsync_v2", OUT_OF_MEMORY)
    with pytest.raises(UnsupportedError, match="no memory left to copy a tensor"):
        made({"input": tensor})
    gc.collect()
    before = driver.counts().device_memory
    del tensor
    gc.collect()
    assert driver.counts().device_memory == before - 1
