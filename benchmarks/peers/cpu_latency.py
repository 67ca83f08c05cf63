"""The cpu placement beside NNCF's on the same runtime and samples: ``make bench-cpu``.

ResNet-50's shape, MobileNetV2 and YOLOX-nano at batch 1. Every system is compiled by OpenVINO
with the same settings and timed in interleaved rounds; the ratio to NNCF is paired by round, so a
busy machine hits both. What each computes is held against FP32 on other samples: the graph as it
is written, and the engine. The first network's weights are random and not fitted; the last two
models are read from ``--assets`` and left out without it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import calibrators
import quantization
from artefacts.errors import InputError
from benchmarks.accuracy import evaluate_all
from benchmarks.latency import LatencyResult, TimingRules, compare_speed, measure
from benchmarks.peers.accuracy_cases import CASES
from benchmarks.peers.cpu_engines import compiled_peer, cpu, our_engine, our_int8
from benchmarks.peers.engine_verdicts import WORST_RATIO, decibels, of_latency
from benchmarks.peers.resnet50 import build_resnet50
from calibrators import Sample
from quantization.improve.methods import EFFORTS
from quantization.measure.execution import Run, load_int8, load_onnxruntime

ROOT = Path(__file__).parents[2]
NNCF = ROOT / ".venv-nncf/bin/python"
JUDGED = 32  # samples that outputs are compared on
REAL = ("MobileNetV2", "YOLOX-nano")
IMPROVEMENT_SAMPLES = EFFORTS["default"].samples
PLAIN, DEFAULT, PEER = "fp32", "int8", "nncf"


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network to quantize.

    Attributes:
        model: prepared.
        learned: what it is quantized with, by NNCF, too.
        judged: what outputs are compared on.
        improved: samples that the default graph is fitted to.
    """

    model: onnx.ModelProto
    learned: Sequence[Sample]
    judged: Sequence[Sample]
    improved: int = IMPROVEMENT_SAMPLES


def networks(assets: Path) -> dict[str, Network]:
    """ResNet-50's shape on noise, and two networks of ``make bench-accuracy``."""
    model = quantization.prepare(build_resnet50())
    noise = list(
        calibrators.random_samples(
            calibrators.input_specs(model), count=IMPROVEMENT_SAMPLES + JUDGED, seed=0
        )
    )
    found = {
        "ResNet-50's shape": Network(
            model=model,
            learned=noise[:IMPROVEMENT_SAMPLES],
            judged=noise[IMPROVEMENT_SAMPLES:],
            improved=0,  # fitting weights that are noise takes long and tells nothing
        )
    }
    for name in REAL:
        case = CASES[name]
        path = assets / "models" / f"{case.file}.onnx"
        if not path.is_file():
            print(f"{name}: no {path}, left out; give --assets", file=sys.stderr)
            continue
        model = case.model(assets)
        learned = case.samples(assets, model, "calibration")[:IMPROVEMENT_SAMPLES]
        judged = case.samples(assets, model, "evaluation")[:JUDGED]
        found[name] = Network(model=model, learned=list(learned), judged=list(judged))
    return found


def graphs(network: Network) -> dict[str, onnx.ModelProto]:
    """What is timed of ours: the default, and what other flags give, which is not fitted."""
    model, samples = network.model, network.learned
    return {
        PLAIN: model,
        "int8, tensorrt placement": our_int8(model, samples, profile="tensorrt", effort=0),
        DEFAULT: our_int8(model, samples, effort=network.improved),
        "int8, --cpu-unsigned": our_int8(model, samples, unsigned=True, effort=0),
    }


def quantize_nncf(model: Path, samples: Sequence[Sample]) -> Path:
    """NNCF's default model, beside the float one."""
    if not NNCF.exists():
        raise InputError(f"{NNCF} does not exist, expected NNCF's environment; make .venv-nncf")
    rows, output = model.with_suffix(".npz"), model.with_suffix(".nncf.onnx")
    arrays: dict[str, Any] = {
        name: np.concatenate([sample.inputs[name] for sample in samples])
        for name in samples[0].inputs
    }
    np.savez(rows, **arrays)
    command = [NNCF, Path(__file__).parent / "nncf_quantize.py", model, rows, output]
    subprocess.run(command, check=True, capture_output=True)
    return output


def compare(
    name: str, network: Network, folder: Path, threads: int, rules: TimingRules
) -> tuple[list[str], float]:
    """Table rows of one network, and the ratio of the default engine's latency to NNCF's."""
    runs: dict[str, Run] = {}
    loaded: dict[str, Run] = {}
    stem = re.sub(r"\W+", "_", name)
    for number, (label, graph) in enumerate(graphs(network).items()):
        path = folder / f"{stem}_{number}.onnx"
        onnx.save(graph, path)
        runs[label] = load_onnxruntime(graph) if label == PLAIN else load_int8(graph)
        loaded[label] = our_engine(path, threads)
    peer = quantize_nncf(folder / f"{stem}_0.onnx", network.learned)
    runs[PEER], loaded[PEER] = load_int8(peer), compiled_peer(peer, threads)
    feeds = dict(network.judged[0].inputs)
    timed = measure({label: partial(run, feeds) for label, run in loaded.items()}, rules=rules)
    ratio = compare_speed(timed[DEFAULT], timed[PEER]).speedup
    return rows(name, timed, levels(network, runs), levels(network, loaded, runs[PLAIN])), ratio


def levels(
    network: Network, systems: Mapping[str, Run], plain: Run | None = None
) -> dict[str, float | None]:
    """SQNR of each system against FP32, which is one of them or given."""
    reference = "reference" if plain is not None else PLAIN
    results = evaluate_all(
        {**systems, **({} if plain is None else {reference: plain})},
        network.judged,
        inputs=calibrators.input_specs(network.model),
        reference=reference,
        labelled=False,
    )
    found = {}
    for label, result in results.items():
        if result.agreement is not None:
            (output,) = result.agreement.outputs.values()
            found[label] = output.sqnr_db
    return found


def rows(
    name: str,
    timed: Mapping[str, LatencyResult],
    graphs_db: Mapping[str, float | None],
    engines_db: Mapping[str, float | None],
) -> list[str]:
    """Markdown rows: one a system."""
    lines = []
    for label, result in timed.items():
        speed = compare_speed(result, timed[PEER])
        low, high = speed.interval.low, speed.interval.high
        median = float(np.median(result.samples_ms))
        graph = decibels(graphs_db[label]) if label in graphs_db else ""
        lines.append(
            f"| {name} | {label} | {median:.2f} | {speed.speedup:.3f} ({low:.3f} to {high:.3f}) "
            f"| {decibels(engines_db[label])} | {graph} |"
        )
    return lines


def main() -> int:
    """Print the table and the verdicts; 1 where the default engine is too slow beside NNCF's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared/assets")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench-cpu")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each system")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seconds = arguments.seconds
    rules = TimingRules(min_time_s=seconds, limit_s=seconds, slice_s=0.1)
    day = datetime.datetime.now(datetime.timezone.utc)
    print(f"{day:%Y-%m-%d}, {cpu()}, {arguments.threads} threads\n")
    print(
        "| model | system | median ms | of NNCF's latency (95 % interval) | engine SQNR dB "
        "| graph SQNR dB |"
    )
    print("|---|---|--:|--:|--:|--:|")
    ratios = {}
    for name, network in networks(arguments.assets).items():
        lines, ratios[name] = compare(name, network, arguments.folder, arguments.threads, rules)
        print("\n".join(lines), flush=True)
    print(*(of_latency(name, ratio) for name, ratio in ratios.items()), sep="\n")
    return int(any(ratio > WORST_RATIO for ratio in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
