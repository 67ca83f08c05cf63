"""What NVML tells of a real GPU. (The folder's rule marks, skips or fails these tests.)"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from benchmarks.__main__ import main
from benchmarks.machine import MachineWatch, capture_environment
from benchmarks.machine.meters import NvmlMeter
from benchmarks.machine.nvml import Gpu, open_gpu
from benchmarks.report import load_report
from engines import BuildOptions, Profile
from tests.engine_models import convnet, save
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


def test_two_plans_are_compared_on_the_device(
    trt: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    low, high = ({"input": (n, 3, 8, 8)} for n in (1, 8))
    for name, quantized in (("fp32", False), ("int8", True)):
        model = save(convnet(rng, quantized=quantized), tmp_path, f"{name}.onnx")
        options = BuildOptions(
            target="tensorrt", precision=name, profiles=(Profile(min=low, opt=high, max=high),)
        )
        engines.build(model, tmp_path / f"{name}.engine", options)
    np.save(tmp_path / "x.npy", rng.uniform(-3, 3, (40, 3, 8, 8)).astype(np.float32))
    words = [f"{tmp_path}/fp32.engine", f"{tmp_path}/int8.engine", "--data", f"{tmp_path}/x.npy"]
    words += ["--duration", "1", "--energy", "1", "--json", f"{tmp_path}/r.json"]
    assert main(words) == 0
    report = load_report(tmp_path / "r.json")
    for system in report.systems:
        spans = [system.device[name].value for name in ("h2d_ms", "compute_ms", "d2h_ms")]
        assert all(span > 0 for span in spans)
        assert sum(spans) < 2 * system.latency.figures["p50_ms"].value
        assert sum(kernel.time_ms for kernel in system.kernels) > 0
        assert any(layer.time_ms for layer in system.layers)
        assert system.settings["CUDA graph"]
