"""TensorRT's calibrators fed through real device memory, called from C++ as the builder does."""

from __future__ import annotations

import numpy as np
import pytest
import tensorrt as trt
from numpy.typing import NDArray

from artefacts.errors import UnsupportedError
from calibrators.samples.data import batches
from calibrators.samples.samples import InputSpec, Sample
from calibrators.tensorrt.calibrator import calibrator
from engines.dlpack import CUDA, DeviceArray
from tests.contract.builder_side import BuilderSide
from tests.host_driver.control import ILLEGAL_ADDRESS, OUT_OF_MEMORY, HostDriver
from tests.host_driver.plans import read, rows

pytestmark = pytest.mark.skipif(
    not hasattr(trt, "IInt8EntropyCalibrator2"), reason="this release has no calibrators"
)
SPEC = InputSpec(name="input", dtype=np.dtype("float32"), shape=("N", 4))


def samples(values: NDArray[np.float32]) -> list[Sample]:
    return [Sample(inputs={"input": row[None]}, name=str(i)) for i, row in enumerate(values)]


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_every_batch_lies_on_the_device(
    rng: np.random.Generator, driver: HostDriver, method: str
) -> None:
    values = rows(rng, 7)
    made, feeder = calibrator(method, batches(samples(values), 2, inputs=(SPEC,)))
    builder = BuilderSide(made, trt.__version__)
    seen = []
    with feeder:
        while (pointers := builder.get_batch(["input"])) is not None:
            seen.append(read(DeviceArray(pointers[0], (2, 4), "float32", (CUDA, 0))))
        assert driver.counts().device_memory == 1
    assert (np.concatenate(seen) == values[:6]).all()  # the seventh fills no batch
    assert driver.counts().device_memory == 0


@pytest.mark.parametrize(
    ("function", "error", "times", "said"),
    [
        ("cuMemAlloc_v2", OUT_OF_MEMORY, 2, "no memory left to take calibration input input"),
        ("cuMemcpyHtoD_v2", ILLEGAL_ADDRESS, 1, "GPU 0 fails to take calibration input input"),
    ],
)
def test_a_gpu_that_fails_ends_the_calibration(
    rng: np.random.Generator, driver: HostDriver, function: str, error: int, times: int, said: str
) -> None:
    made, feeder = calibrator("entropy", batches(samples(rows(rng, 4)), 2, inputs=(SPEC,)))
    builder = BuilderSide(made, trt.__version__)
    driver.fail(function, error, times=times)
    assert builder.get_batch(["input"]) is None
    assert builder.get_batch(["input"]) is None
    feeder.close()
    with pytest.raises(UnsupportedError, match=said):
        feeder.check()
