"""INT8 outputs against FP32, ours and peers', on real networks: ``make bench-accuracy``.

Every system gets the same model and calibration samples and writes a Q/DQ graph; all graphs are
run by onnxruntime with its optimizations off, so that Q and DQ are computed in float as they are
written, on the same evaluation samples. SQNR is over all outputs and samples. A graph that
TensorRT would not take as it is (unsigned codes, a zero point) is marked. What OpenVINO makes of
the graphs for this CPU, ours and NNCF's, is measured beside them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import calibrators
from benchmarks.accuracy import AccuracyResult, evaluate_all
from benchmarks.peers.accuracy_cases import CASES, Case
from benchmarks.peers.accuracy_promise import kept_promise, promise_table
from benchmarks.peers.accuracy_tables import engine_table, engine_verdicts, table, verdicts
from benchmarks.peers.cpu_engines import compiled_peer, cpu, our_engine, our_int8
from quantization.measure.execution import Run, load_int8, load_onnxruntime

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "accuracy_systems.py"
PYTHONS = {
    "onnxruntime": Path(sys.executable),
    "modelopt": ROOT / ".venv-modelopt/bin/python",
    "nncf": ROOT / ".venv-nncf/bin/python",
}
OURS = ("ours", "ours-calibrated", "ours-unsigned", "ours-cpu")
PEERS = (
    "onnxruntime-minmax",
    "onnxruntime-entropy",
    "onnxruntime-percentile",
    "modelopt-max",
    "modelopt-entropy",
    "nncf-default",
    "nncf-overflow",
    "nncf-control",
)
ON_CPU = ("ours-unsigned", "ours-cpu", "nncf-default", "nncf-overflow")  # engines of them, too
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def make_ours(model: onnx.ModelProto, samples: list[Any], system: str) -> onnx.ModelProto:
    """For TensorRT by default, what calibration alone gives; or for this CPU, uint8 or by default.

    All but the last are fitted to all samples.
    """
    count = len(samples)
    if system == "ours-cpu":
        return our_int8(model, samples)
    if system == "ours-unsigned":
        return our_int8(model, samples, unsigned=True, improved=count)
    improved = 0 if system == "ours-calibrated" else count
    return our_int8(model, samples, profile="tensorrt", portable=False, improved=improved)


def make_peer(system: str, model: Path, rows: Path, output: Path) -> bool:
    """Write a peer's model; False where its environment is missing or it fails."""
    python = PYTHONS[system.partition("-")[0]]
    if not python.exists():
        print(f"  {system}: no {python}, left out", file=sys.stderr)
        return False
    done = subprocess.run(
        [python, SCRIPT, system, model, rows, output],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if not output.exists():
        print(f"  {system} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
    return output.exists()


def accepted(model: onnx.ModelProto) -> bool:
    """Whether TensorRT takes the codes as they are: signed, zero point 0."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = stored.get(node.input[2])
            signed = zero is not None and zero.data_type == TensorProto.INT8
            if zero is None or not signed or numpy_helper.to_array(zero).any():
                return False
    return True


def int8_share(model: onnx.ModelProto) -> float:
    """Share of the layers with weights whose data and weight both come out of Q/DQ, 0 to 1."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in WEIGHTED]
    inside = [n for n in layers if all(made.get(i) == "DequantizeLinear" for i in n.input[:2])]
    return len(inside) / max(len(layers), 1)


def measure(
    name: str, case: Case, assets: Path, folder: Path, systems: list[str]
) -> dict[str, dict[str, Any]]:
    """Figures of all systems on one network."""
    source = assets / "models" / f"{case.file}.onnx"
    model = case.model(assets)
    samples = list(case.samples(assets, model, "calibration"))
    rows = folder / f"{case.file}.npy"
    np.save(rows, np.concatenate([next(iter(s.inputs.values())) for s in samples]))
    graphs: dict[str, onnx.ModelProto] = {}
    seconds: dict[str, float] = {}
    for system in systems:
        path = folder / f"{case.file}.{system}.onnx"
        path.unlink(missing_ok=True)
        start = time.perf_counter()
        if system in OURS:
            onnx.save(make_ours(model, samples, system), path)
        elif not make_peer(system, source, rows, path):
            continue
        seconds[system] = time.perf_counter() - start
        graphs[system] = onnx.load(path)
        print(f"  {name}: {system} {seconds[system]:.0f} s", file=sys.stderr, flush=True)
    runs: Mapping[str, Run] = {
        "fp32": load_onnxruntime(model),
        **{system: load_int8(graph) for system, graph in graphs.items()},
    }
    loaded = engines_of(graphs, folder / case.file)
    results = evaluate_all(
        {**runs, **{engine_name(system): run for system, run in loaded.items()}},
        case.samples(assets, model, "evaluation"),
        case.task(assets),
        inputs=calibrators.input_specs(model),
        reference="fp32",
    )
    found = {
        system: {
            **figures(results[system]),
            "accepted": system == "fp32" or accepted(graphs[system]),
            "int8_share": 0.0 if system == "fp32" else int8_share(graphs[system]),
            "seconds": seconds.get(system),
        }
        for system in runs
    }
    for system in loaded:
        found[system]["engine"] = {**figures(results[engine_name(system)]), "cpu": cpu()}
    return found


def engines_of(graphs: Mapping[str, onnx.ModelProto], stem: Path) -> dict[str, Run]:
    """What OpenVINO makes of those for the CPU; files are ``stem.SYSTEM.onnx``."""
    threads = os.cpu_count() or 1
    loaded: dict[str, Run] = {}
    for system in graphs:
        path = stem.with_name(f"{stem.name}.{system}.onnx")
        if system in ON_CPU:
            load = our_engine if system in OURS else compiled_peer
            loaded[system] = load(path, threads)
    return loaded


def engine_name(system: str) -> str:
    """What the engine of a system is called beside its graph."""
    return f"{system}, engine"


def is_measured(known: Mapping[str, Any], system: str, cpu_name: str) -> bool:
    """Whether an earlier run did; an engine's figures are those of one CPU."""
    if system in ON_CPU:
        return bool(known.get(system, {}).get("engine", {}).get("cpu") == cpu_name)
    return system in known


def figures(result: AccuracyResult) -> dict[str, Any]:
    """What the table shows of one system."""
    found: dict[str, Any] = {"metric": result.metric, "value": result.value}
    if result.agreement is not None:
        (output,) = result.agreement.outputs.values()
        found |= {"sqnr_db": output.sqnr_db, "agreement": result.agreement.top1}
    return found


def versions() -> str:
    """Of what was compared; a peer whose environment is missing is left out."""
    found = [f"onnxruntime {importlib.metadata.version('onnxruntime')} (scores graphs)"]
    found.append(f"OpenVINO {importlib.metadata.version('openvino')} (runs engines)")
    for peer, package in (("modelopt", "nvidia-modelopt"), ("nncf", "nncf")):
        program = f"import importlib.metadata as m; print(m.version({package!r}))"
        if PYTHONS[peer].exists():
            done = subprocess.run(
                [PYTHONS[peer], "-c", program], capture_output=True, text=True, check=False
            )
            found.append(f"{package} {done.stdout.strip()}")
    return ", ".join(found)


def cached(path: Path) -> dict[str, Any]:
    """What an earlier run has measured of one network."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return {"systems": {}, "promise": {}, **found}


def main() -> None:
    """Measure what is not measured yet, print the tables, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench-accuracy")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NETWORK")
    parser.add_argument("--systems", nargs="*", default=[*OURS, *PEERS])
    parser.add_argument("--no-promise", action="store_true", help="without the --max-drop row")
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        case, path = CASES[name], folder / f"{CASES[name].file}.json"
        known = cached(path)
        systems = [
            system
            for system in arguments.systems
            if arguments.again or not is_measured(known["systems"], system, cpu())
        ]
        for system in systems:  # one by one, so that a run that is cut off loses little
            known["systems"].update(measure(name, case, arguments.assets, folder, [system]))
            path.write_text(json.dumps(known, indent=1))
        if not arguments.no_promise and (arguments.again or not known["promise"]):
            print(f"  {name}: --max-drop", file=sys.stderr, flush=True)
            known["promise"] = kept_promise(case, arguments.assets, folder)
            path.write_text(json.dumps(known, indent=1))
    kept = {name: cached(folder / f"{case.file}.json") for name, case in CASES.items()}
    results = {name: entry["systems"] for name, entry in kept.items() if entry["systems"]}
    day = datetime.datetime.now(datetime.timezone.utc)
    print(f"{day:%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores; {versions()}")
    print("\n".join(table(results)), *verdicts(results), sep="\n")
    print("\n".join(engine_table(results)), *engine_verdicts(results, cpu()), sep="\n")
    print("\n".join(promise_table({name: entry["promise"] for name, entry in kept.items()})))


if __name__ == "__main__":
    main()
