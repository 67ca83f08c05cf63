"""Which GPU NVML is asked about: CUDA's, whatever NVML's own order is."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from benchmarks.machine.nvml import open_gpu
from tests.host_driver.control import NO_DEVICE, HostDriver


class Nvml(ModuleType):
    """As much of pynvml as finds a device, in the other order than CUDA."""

    NVMLError = RuntimeError
    buses = (b"0000:40:00.0", b"0000:41:00.0")

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> int:
        return self.buses.index(bus)


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("pynvml"))


@pytest.mark.parametrize(("index", "handle"), [(0, 1), (1, 0)])
def test_the_device_is_found_by_its_bus(index: int, handle: int) -> None:
    gpu = open_gpu(index)
    assert gpu is not None
    assert gpu.handle == handle


def test_what_cuda_does_not_show_is_not_measured(driver: HostDriver) -> None:
    assert open_gpu(2) is None
    driver.fail("cuDeviceGetPCIBusId", NO_DEVICE)
    assert open_gpu(0) is None
