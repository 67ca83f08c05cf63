"""The first stage of ``smoke.py``: what is there."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from artefacts.libraries import require
from engines.environment import gpu_facts

Seen = dict[str, Any]


def versions(folder: Path) -> Seen:
    """Machine, driver, libraries, and which features this TensorRT has."""
    trt = require("tensorrt", extra="tensorrt")
    seen: Seen = {
        "python": sys.version,
        "machine": platform.uname()._asdict(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "gpu": gpu_facts(),
        "tensorrt": trt.__version__,
        "enums": {
            name: sorted(getattr(trt, name).__members__)
            for name in ("BuilderFlag", "DataType", "MemoryPoolType", "PreviewFeature")
        },
        "calibrators": hasattr(trt, "IInt8EntropyCalibrator2"),
        "l4t": _read("/etc/nv_tegra_release"),
        "nvidia_smi": _output("nvidia-smi", "-q"),
        "packages": _output(sys.executable, "-m", "pip", "list", "--format=freeze"),
    }
    pycuda = require("pycuda", extra="tensorrt")
    driver = require("pycuda.driver", extra="tensorrt")
    driver.init()
    seen["pycuda"] = {
        "version": pycuda.VERSION_TEXT,
        "built_for": driver.get_version(),
        "driver": driver.get_driver_version(),
        "devices": [driver.Device(i).name() for i in range(driver.Device.count())],
    }
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    seen["dla_cores"] = builder.num_DLA_cores
    return seen


def _read(path: str) -> str | None:
    return Path(path).read_text(errors="replace") if Path(path).is_file() else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    return done.stdout
