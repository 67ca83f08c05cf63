"""One way of calibrating, in a process of its own: ``python calibration_systems.py SYSTEM ...``.

Each prints a line of JSON: seconds from a model and images to the result, processor seconds (those
of loading libraries and the model are among them), and the peak memory of the process. Peers run
under their own environment's Python, so this file imports nothing of the project but for "ours".
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IMAGE = (3, 224, 224)
_HEADER_BYTES = 128  # of an .npy file with a short header


class Images:
    """The first images of an .npy file, read when asked for.

    Not mapped: pages of a mapped file count as memory of the process, and would hide what
    calibration itself holds.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        start, stop, _ = rows.indices(self._count)
        size = math.prod(_IMAGE)
        values = np.fromfile(
            self._path, np.float32, (stop - start) * size, offset=_HEADER_BYTES + 4 * start * size
        )
        return values.reshape(stop - start, *_IMAGE)


METHODS = ("minmax", "entropy", "mse", "percentile:99.99")


def forward(model: Path, images: Images, *, batch: int) -> dict[str, float]:
    """Plain FP32 forward passes; loading the model and the first pass are not timed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    session.run(None, {"images": images[:batch]})
    start = time.perf_counter()
    for row in range(0, len(images), batch):
        session.run(None, {"images": images[row : row + batch]})
    return {"seconds": time.perf_counter() - start}


def ours(model: Path, images: Images) -> dict[str, float]:
    """Statistics of every tensor that needs a range, and the ranges by all four methods."""
    import onnx

    from calibrators.ranges.methods import compute_ranges
    from calibrators.samples.samples import Sample
    from calibrators.statistics.observe import observe
    from quantization import place

    class Rows:
        def __len__(self) -> int:
            return len(images)

        def __iter__(self) -> Iterator[Sample]:
            for row in range(len(images)):
                yield Sample(inputs={"images": images[row : row + 1]}, name=str(row))

    loaded = onnx.load(model)
    tensors = place(loaded).tensors
    start = time.perf_counter()
    statistics = observe(loaded, tensors, Rows())
    observed = time.perf_counter()
    for method in METHODS:
        compute_ranges(statistics, method=method)
    done = time.perf_counter()
    return {
        "seconds": done - start,
        "methods_seconds": done - observed,
        "tensors": len(tensors),
    }


class _Reader:
    """onnxruntime's protocol: one batch at a time, None at the end."""

    def __init__(self, images: Images) -> None:
        self._rows = iter(range(len(images)))
        self._images = images

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        row = next(self._rows, None)
        if row is None:
            return None
        return {"images": self._images[row : row + 1]}


def onnxruntime_static(model: Path, images: Images) -> dict[str, float]:
    """``quantize_static`` with entropy, symmetric, per channel."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    CalibrationDataReader.register(_Reader)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        quantize_static(
            str(model),
            str(Path(folder) / "int8.onnx"),
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return {"seconds": time.perf_counter() - start}


def modelopt(model: Path, images: Images) -> dict[str, float]:
    """``modelopt.onnx.quantization.quantize`` with its default for INT8, entropy."""
    from modelopt.onnx.quantization import quantize

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        quantize(
            str(model),
            quantize_mode="int8",
            calibration_data={"images": images[:]},
            calibration_method="entropy",
            calibration_eps=["cpu"],
            calibration_shapes="images:1x3x224x224",
            high_precision_dtype="fp32",
            output_path=str(Path(folder) / "int8.onnx"),
            log_level="ERROR",
        )
        return {"seconds": time.perf_counter() - start}


def nncf(model: Path, images: Images) -> dict[str, float]:
    """``nncf.quantize`` of the ONNX model with its defaults."""
    import nncf as library
    import onnx

    loaded = onnx.load(model)
    rows = range(len(images))
    dataset = library.Dataset(rows, lambda row: {"images": images[row : row + 1]})
    start = time.perf_counter()
    library.quantize(
        loaded,
        dataset,
        preset=library.QuantizationPreset.PERFORMANCE,
        subset_size=len(rows),
    )
    return {"seconds": time.perf_counter() - start}


SYSTEMS = {
    "forward-1": lambda model, images: forward(model, images, batch=1),
    "forward-8": lambda model, images: forward(model, images, batch=8),
    "ours": ours,
    "onnxruntime": onnxruntime_static,
    "modelopt": modelopt,
    "nncf": nncf,
}


def peak_mb() -> float:
    """Largest resident memory of this process so far.

    From /proc: what getrusage calls the maximum begins with that of the process which started
    this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run one system and print its measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    images = Images(arguments.images, arguments.count)
    started = time.process_time()
    found: dict[str, float] = SYSTEMS[arguments.system](arguments.model, images)
    found["cpu_seconds"] = time.process_time() - started
    found["peak_mb"] = peak_mb()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
