"""The cpu placement beside NNCF's on the same runtime and samples: ``make bench-cpu``.

ResNet-50's shape, MobileNetV2 and YOLOX-nano at batch 1. Every system is compiled by OpenVINO
with the same settings and timed in interleaved rounds; the ratio to NNCF is paired by round, so a
busy machine hits both. The last two models are read from ``--assets`` and left out without it.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import calibrators
import engines
import quantization
from artefacts.errors import InputError
from benchmarks.latency import TimingRules, compare_speed, measure
from benchmarks.peers.resnet50 import build_resnet50
from calibrators.geometry import Letterbox
from engines.openvino_library import DEVICE, core, settings

ROOT = Path(__file__).parents[2]
NNCF = ROOT / ".venv-nncf/bin/python"
WORST_RATIO = 1.1
PREPROCESS = {
    "mobilenet_v2_1.0_224_fp32": (
        "imagenet/calib",
        calibrators.Preprocess(crop=(224, 224), scale=1 / 128, mean=1.0),
    ),
    "yolox_nano": (
        "coco/calib",
        calibrators.Preprocess(
            letterbox=Letterbox(size=(416, 416), anchor="top-left"),
            color="bgr",
            scale=1.0,
        ),
    ),
}
Rows = NDArray[np.float32]
Call = Callable[[], object]


def models(assets: Path, count: int) -> dict[str, tuple[onnx.ModelProto, Rows]]:
    """Prepared models and ``count`` samples of each, (count, 3, H, W)."""
    shape = (count, 3, 224, 224)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found = {"resnet50_shape": (quantization.prepare(build_resnet50()), noise)}
    for name, (folder, preprocess) in PREPROCESS.items():
        path = assets / "models" / f"{name}.onnx"
        if path.is_file():
            model = quantization.prepare(quantization.load_model(path))
            samples = calibrators.open_samples(
                assets / folder, inputs=calibrators.input_specs(model), preprocess=preprocess
            )
            taken = itertools.islice(samples, count)
            rows = [next(iter(sample.inputs.values())) for sample in taken]
            found[name] = (model, np.concatenate(rows))
        else:
            print(f"{name}: no {path}, left out; give --assets", file=sys.stderr)
    return found


def int8_model(
    model: onnx.ModelProto, rows: Rows, profile: quantization.Profile, *, unsigned: bool = False
) -> onnx.ModelProto:
    """INT8 graph with min-max ranges of the samples; methods change values, not latency."""
    name = calibrators.input_specs(model)[0].name
    samples = [
        calibrators.Sample(inputs={name: row[None]}, name=str(i)) for i, row in enumerate(rows)
    ]
    placement = quantization.place(model, profile=profile, unsigned=unsigned)
    statistics = calibrators.observe(model, placement.tensors, samples)
    ranges = calibrators.compute_ranges(statistics, method="minmax")
    return quantization.insert_qdq(model, placement, ranges)


def compile_ours(path: Path, model: onnx.ModelProto, rows: Rows, threads: int) -> Call:
    """An engine of this project."""
    onnx.save(model, path)
    options = engines.BuildOptions(target="cpu", threads=threads)
    engines.build(path, path.with_suffix(".engine"), options, {})
    engine = engines.load(path.with_suffix(".engine"))
    feeds = {engine.inputs[0].name: rows[:1]}
    return lambda: engine(feeds)


def compile_nncf(model: Path, rows: Rows, threads: int) -> Call:
    """NNCF's model, compiled and called as its users do."""
    if not NNCF.exists():
        raise InputError(f"{NNCF} does not exist, expected NNCF's environment; make .venv-nncf")
    name = core().read_model(model).inputs[0].get_any_name()
    samples, output = model.with_suffix(".npz"), model.with_suffix(".nncf.onnx")
    arrays: dict[str, Any] = {name: rows}
    np.savez(samples, **arrays)
    command = [NNCF, Path(__file__).parent / "nncf_quantize.py", model, samples, output]
    subprocess.run(command, check=True, capture_output=True)
    request = core().compile_model(output, DEVICE, settings(threads, "f32")).create_infer_request()
    feeds = {name: rows[:1]}
    return lambda: request.infer(feeds)


def compare(
    name: str, model: onnx.ModelProto, rows: Rows, folder: Path, threads: int, rules: TimingRules
) -> tuple[list[str], float]:
    """Table rows of one model, and the ratio of the default graph to NNCF's."""
    graphs = {
        "fp32": model,
        "int8, tensorrt placement": int8_model(model, rows, "tensorrt"),
        "int8": int8_model(model, rows, "cpu"),
        "int8, --cpu-unsigned": int8_model(model, rows, "cpu", unsigned=True),
    }
    calls = {
        label: compile_ours(folder / f"{name}_{i}.onnx", graph, rows, threads)
        for i, (label, graph) in enumerate(graphs.items())
    }
    calls["nncf"] = compile_nncf(folder / f"{name}_0.onnx", rows, threads)
    results = measure(calls, rules=rules)
    lines, ratios = [], {}
    for label, result in results.items():
        speed = compare_speed(result, results["nncf"])
        low, high = speed.interval.low, speed.interval.high
        ratios[label] = speed.speedup
        median = float(np.median(result.samples_ms))
        lines.append(
            f"| {name} | {label} | {median:.2f} | {speed.speedup:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return lines, ratios["int8"]


def main() -> int:
    """Print the table; 1 where the default graph is slower than 1.1 times NNCF's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared/assets")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench-cpu")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each system")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seconds = arguments.seconds
    rules = TimingRules(min_time_s=seconds, limit_s=seconds, slice_s=0.1)
    print(f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {arguments.threads} threads\n")
    print("| model | system | median ms | of NNCF's latency (95 % interval) |")
    print("|---|---|--:|--:|")
    ratios = {}
    for name, (model, rows) in models(arguments.assets, arguments.samples).items():
        lines, ratios[name] = compare(name, model, rows, arguments.folder, arguments.threads, rules)
        print("\n".join(lines), flush=True)
    slow = {name: ratio for name, ratio in ratios.items() if ratio > WORST_RATIO}
    for name, ratio in slow.items():
        print(f"{name}: {ratio:.3f} times NNCF's latency, expected {WORST_RATIO}", file=sys.stderr)
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
