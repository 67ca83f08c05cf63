"""INT8 outputs against FP32, ours and peers', on real networks: ``make bench-accuracy``.

Every system gets the same model and calibration samples and writes a Q/DQ graph; all graphs are
run by onnxruntime with its optimizations off, so that Q and DQ are computed in float as they are
written, on the same evaluation samples. SQNR is over all outputs and samples. A graph that
TensorRT would not take as it is (unsigned codes, a zero point) is marked. What OpenVINO makes of
the graphs for this CPU, ours and NNCF's, is measured beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

import calibrators
from benchmarks.accuracy import AccuracyResult, evaluate_all
from benchmarks.peers.accuracy_cases import CASES, Case
from benchmarks.peers.accuracy_ours import OURS
from benchmarks.peers.accuracy_promise import kept_promise, promise_table
from benchmarks.peers.accuracy_tables import (
    engine_table,
    engine_verdicts,
    strong_verdicts,
    summary,
    table,
    verdicts,
)
from benchmarks.peers.cpu_engines import compiled_peer, cpu, our_engine
from benchmarks.peers.tool_process import ToolRun, run_tool
from quantization.measure.execution import Run, load_int8, load_onnxruntime

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
SCRIPTS = {"quark": FOLDER / "quark_quantize.py", "aimet": FOLDER / "aimet_quantize.py"}
PYTHONS = {
    "ours": Path(sys.executable),
    "onnxruntime": Path(sys.executable),
    "modelopt": ROOT / ".venv-modelopt/bin/python",
    "nncf": ROOT / ".venv-nncf/bin/python",
    "quark": ROOT / ".venv-quark/bin/python",
    "aimet": ROOT / ".venv-aimet/bin/python",
}
PEERS = (
    "onnxruntime-minmax",
    "onnxruntime-entropy",
    "onnxruntime-percentile",
    "modelopt-max",
    "modelopt-entropy",
    "nncf-default",
    "nncf-overflow",
    "nncf-control",
    "quark-cle",
    "quark-adaround",
    "quark-adaquant",
    "aimet-seqmse",
    "aimet-adaround",
    "aimet-adaround10k",
)
PACKAGES = {
    "modelopt": "nvidia-modelopt",
    "nncf": "nncf",
    "quark": "amd-quark",
    "aimet": "aimet-onnx",
}
ON_CPU = ("ours-unsigned", "ours-cpu", "nncf-default", "nncf-overflow")  # engines of them, too
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def make(system: str, model: Path, rows: Path, output: Path, limit_s: int) -> ToolRun | None:
    """Write a system's model in a process of its own; None where its environment is missing.

    Args:
        system: ours or peer-method.
        model: the float model.
        rows: calibration samples.
        output: the INT8 model.
        limit_s: processor seconds that it may use.
    """
    peer = system.partition("-")[0]
    python = PYTHONS[peer]
    if not python.exists():
        print(f"  {system}: no {python}, left out", file=sys.stderr)
        return None
    ours = ["-m", "benchmarks.peers.accuracy_ours"]
    script = ours if system in OURS else [SCRIPTS.get(peer, FOLDER / "accuracy_systems.py")]
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(model, folder)  # ModelOpt writes inferred shapes into what it is given
        run = run_tool(
            [python, *script, system, copy, rows, output],
            environment={
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": str(ROOT) if peer == "ours" else "",
            },
            limit_processor_s=limit_s,
        )
    if not run.failure and not output.exists():
        run = dataclasses.replace(run, failure="it wrote no model")
    if run.failure:
        print(f"  {system} failed:\n{run.output}", file=sys.stderr)
    return run


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
    case: Case,
    assets: Path,
    folder: Path,
    system: str,
    limit_s: int,
    rows: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures of FP32 and of one system on one network; empty where that is left out.

    Args:
        case: the network.
        assets: where it and its data lie.
        folder: of the INT8 models.
        system: ours or peer-method.
        limit_s: processor seconds that a tool may use.
        rows: calibration samples; None for the network's own.
    """
    model = case.model(assets)
    rows = case.calibration_rows(assets, model, folder) if rows is None else rows
    path = folder / f"{case.file}.{system}.onnx"
    path.unlink(missing_ok=True)
    run = make(system, assets / "models" / f"{case.file}.onnx", rows, path, limit_s)
    if run is None:
        return {}
    cost = {"seconds": run.seconds, "processor_s": run.processor_s, "peak_mb": run.peak_mb}
    if run.failure:
        return {system: {**cost, "failure": run.failure}}
    graph = onnx.load(path)
    runs: dict[str, Run] = {"fp32": load_onnxruntime(model), system: load_int8(graph)}
    loaded = engines_of({system: graph}, folder / case.file)
    results = evaluate_all(
        {**runs, **{engine_name(system): run for system, run in loaded.items()}},
        case.samples(assets, model, "evaluation"),
        case.task(assets),
        inputs=calibrators.input_specs(model),
        reference="fp32",
    )
    share = int8_share(graph)
    found = {
        "fp32": {**figures(results["fp32"]), "accepted": True, "int8_share": 0.0},
        system: {**figures(results[system]), "accepted": accepted(graph), "int8_share": share},
    }
    found[system] |= cost
    if system in loaded:
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
    """Whether an earlier run did, with its cost; an engine's figures are those of one CPU."""
    if "processor_s" not in known.get(system, {}):
        return False
    if system in ON_CPU and "failure" not in known[system]:
        return bool(known.get(system, {}).get("engine", {}).get("cpu") == cpu_name)
    return True


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
    for peer, package in PACKAGES.items():
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
    parser.add_argument("--limit", type=int, default=3600, help="processor seconds of a tool")
    parser.add_argument("--no-promise", action="store_true", help="without the --max-drop row")
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        case, path = CASES[name], folder / f"{CASES[name].file}.json"
        assets = case.home(arguments.assets.resolve(), folder)
        known = cached(path)
        systems = [
            system
            for system in arguments.systems
            if arguments.again or not is_measured(known["systems"], system, cpu())
        ]
        for system in systems:  # one by one, so that a run that is cut off loses little
            known["systems"].update(measure(case, assets, folder, system, arguments.limit))
            print(f"  {name}: {system}, {known['systems'].get(system)}", file=sys.stderr)
            path.write_text(json.dumps(known, indent=1))
        if not arguments.no_promise and (arguments.again or not known["promise"]):
            print(f"  {name}: --max-drop", file=sys.stderr, flush=True)
            known["promise"] = kept_promise(case, assets, folder)
            path.write_text(json.dumps(known, indent=1))
    kept = {name: cached(folder / f"{case.file}.json") for name, case in CASES.items()}
    results = {name: entry["systems"] for name, entry in kept.items() if "fp32" in entry["systems"]}
    day = datetime.datetime.now(datetime.timezone.utc)
    print(f"{day:%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores; {versions()}")
    print("\n".join(summary(results)), *verdicts(results), *strong_verdicts(results), sep="\n")
    print("\n".join(table(results)))
    print("\n".join(engine_table(results)), *engine_verdicts(results, cpu()), sep="\n")
    print("\n".join(promise_table({name: entry["promise"] for name, entry in kept.items()})))


if __name__ == "__main__":
    main()
