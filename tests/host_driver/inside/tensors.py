"""Tensors that stay on the device: in by DLPack, lent and handed over, each with its memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from artefacts.errors import RequestError
from engines import dlpack
from engines.dlpack import CUDA, DeviceArray
from tests.host_driver.control import HostDriver
from tests.host_driver.plans import engine, on_gpu, read, rows, runner


def test_gpu_tensors_are_read_where_they_lie(rng: np.random.Generator, driver: HostDriver) -> None:
    with engine(runner()) as made:
        before = driver.counts().device_memory
        for _ in range(3):
            values = rows(rng, 5)
            assert (made({"input": on_gpu(values)})["output"] == 2 * values).all()
        assert driver.counts().device_memory == before + 1  # the output's; the input needed none
        assert driver.counts().launches == 0


@pytest.mark.parametrize("offset", [4, 16, 128])
def test_a_slice_that_is_not_aligned_is_copied(
    rng: np.random.Generator, driver: HostDriver, offset: int
) -> None:
    with engine(runner()) as made:
        for batch in (2, 9, 2):
            values = rows(rng, batch)
            tensor = on_gpu(values, offset_bytes=offset)
            assert (made({"input": tensor})["output"] == 2 * values).all()
            times = made.device_times({"input": tensor})
            assert list(times) == ["h2d_ms", "compute_ms", "d2h_ms"]
    assert dlpack._EXPORTED == {}


def test_outputs_on_the_gpu_have_an_owner(rng: np.random.Generator, driver: HostDriver) -> None:
    with engine(runner()) as made:
        first, second = rows(rng, 2), rows(rng, 2)
        kept = made({"input": first}, on_device=True)["output"]
        assert kept.__dlpack_device__() == (CUDA, 0)
        made({"input": second}, on_device=True)
        assert (read(kept) == 2 * first).all()
        chained = made({"input": kept})["output"]
        assert (chained == 4 * first).all()
    # The engine is closed; the array still has its memory.
    assert (read(kept) == 2 * first).all()
    assert driver.counts().device_memory == 1
    del kept
    gc.collect()
    assert driver.counts().device_memory == 0


def test_a_lent_output_keeps_its_memory(rng: np.random.Generator, driver: HostDriver) -> None:
    made = engine(runner())
    first = rows(rng, 2)
    lent = made({"input": first}, copy=False, on_device=True)["output"]
    made({"input": rows(rng, 30)}, copy=False, on_device=True)  # grows into other memory
    assert (read(lent) == 2 * first).all()
    capsule = lent.__dlpack__()
    del lent
    made.close()
    assert driver.counts().device_memory == 1  # the capsule's
    del capsule
    gc.collect()
    assert driver.counts().device_memory == 0


def test_lent_outputs_on_the_gpu_use_graphs(rng: np.random.Generator, driver: HostDriver) -> None:
    with engine(runner()) as made:
        for _ in range(4):
            x = rows(rng, 2)
            lent = made({"input": x}, copy=False, on_device=True)["output"]
            assert (read(lent) == 2 * x).all()
        assert driver.counts().launches == 2


def test_wrong_gpu_tensors_are_given_back(rng: np.random.Generator) -> None:
    values = rows(rng, 2)
    with engine(runner()) as made:
        cases = [
            (on_gpu(values, device=1), "tensor is on GPU 1, expected GPU 0"),
            (DeviceArray(1, (2, 4), "float16", (CUDA, 0)), "dtype float16, expected float32"),
            (DeviceArray(1, (2, 5), "float32", (CUDA, 0)), r"shape \(2, 5\), expected \(any, 4\)"),
            (DeviceArray(1, (99, 4), "float32", (CUDA, 0)), r"shapes input \(99, 4\), expected"),
        ]
        for tensor, said in cases:
            with pytest.raises(RequestError, match=said):
                made({"input": tensor})
            assert dlpack._EXPORTED == {}
        assert (made({"input": values})["output"] == 2 * values).all()
