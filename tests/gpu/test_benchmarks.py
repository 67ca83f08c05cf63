"""What NVML tells of a real GPU. (The folder's rule marks, skips or fails these tests.)"""

from __future__ import annotations

import time

import pytest

from benchmarks.machine import MachineWatch, capture_environment
from benchmarks.machine.meters import NvmlMeter
from benchmarks.machine.nvml import Gpu, open_gpu
from tests.gpu.conftest import require


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Gpu:
    require(request.config, "pynvml")
    found = open_gpu()
    if found is None:
        pytest.skip("NVML shows no GPU (a Jetson's own sensors are read instead)")
    return found


def test_power_clock_and_temperature_are_plausible(gpu: Gpu) -> None:
    watts, clock, degrees = gpu.power_w(), gpu.clock_mhz(), gpu.temperature_c()
    assert watts is None or 1 < watts < 1500
    assert clock is None or 100 < clock < 5000
    assert degrees is None or 10 < degrees < 120
    assert gpu.slowdowns() is None or isinstance(gpu.slowdowns(), tuple)


def test_the_environment_names_the_gpu(gpu: Gpu) -> None:
    found = capture_environment(gpu=gpu)["gpu"]
    assert found["name"] == gpu.name
    assert found["driver"] != "unknown"


def test_a_watch_sees_the_gpu(gpu: Gpu) -> None:
    watch = MachineWatch(gpu=gpu, interval_s=0.0)
    time.sleep(0.01)
    watch.sample()
    assert watch.verdict().facts["GPU clock"].endswith("MHz")
    assert NvmlMeter(gpu=gpu).name.startswith("NVML board power of ")
