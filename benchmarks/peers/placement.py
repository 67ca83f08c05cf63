"""Our placement beside ModelOpt's, by the kernels that NVIDIA's builder makes of both.

``make bench-placement``. Each network is quantized by this project's command for TensorRT-RTX and
by ModelOpt, both with the rest in float16 as their defaults have it, from the same samples; both
graphs go through the same builder for each compute capability. Nothing runs on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from artefacts.errors import BuilderError
from artefacts.files import write_atomic
from benchmarks.peers.placement_kernels import TARGET, compile_graph
from benchmarks.peers.placement_networks import NETWORKS, ROOT, model_of, samples_of
from benchmarks.peers.placement_tables import render, verdicts
from benchmarks.report.results import insert_results
from benchmarks.zoo.measure import judged
from benchmarks.zoo.network import Sample
from build_engine import build
from engines import Manifest
from engines.onnx_layers import weighted_layers
from engines.openvino.library import cpu_facts
from graphs.files import load_model

STORED = ROOT / "benchmarks/results/placement/kernels.json"
PAGE = ROOT / "docs/placement.md"
MODELOPT = ROOT / ".venv-modelopt/bin/python"
SCRIPT = Path(__file__).parent / "accuracy_systems.py"
CAPABILITIES = ("8.6", "8.9", "12.0")


def ours(model: Path, feeds: list[Sample], improve: int) -> Manifest:
    """What our engine is, built from the graph beside it."""
    engine = model.with_suffix(".engine")
    result = build(
        model, engine, target=TARGET, calib_data=feeds, improve=improve, force=True,
        compute_capability=CAPABILITIES[:1]
    )  # fmt: skip
    if result.manifest is None:
        raise BuilderError(f"the build of {model} ended without an engine; see what it said")
    return result.manifest


def modelopts(model: Path, feeds: list[Sample]) -> Path:
    """The graph that ModelOpt writes; that of an earlier run where it lies there.

    Raises:
        BuilderError: it is not installed, or fails.
    """
    rows, output = model.with_suffix(".npz"), model.with_suffix(".modelopt.onnx")
    arrays: dict[str, Any] = {
        f"{number}/{name}": array
        for number, feed in enumerate(feeds)
        for name, array in feed.items()
    }
    np.savez(rows, **arrays)
    if output.is_file():
        return output
    if not MODELOPT.exists():
        raise BuilderError(f"{MODELOPT} does not exist, expected ModelOpt; make .venv-modelopt")
    command = [str(each) for each in (MODELOPT, SCRIPT, "modelopt-half", model, rows, output)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not output.is_file():
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise BuilderError(f"ModelOpt ends with: {last[0]}")
    return output


def measure(name: str, folder: Path, improve: int) -> dict[str, Any]:
    """What both graphs of a network become, for the stored results."""
    model = model_of(name, folder)
    feeds, held = samples_of(name)
    manifest = ours(model, feeds, improve)
    graph = model.parent / str(manifest.onnx["name"])
    graphs = {"ours": graph, "modelopt": modelopts(model, feeds)}
    return {
        "name": name,
        "day": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "macs": sum(layer.macs for layer in weighted_layers(load_model(model))),
        "left_macs": left_in_float(manifest),
        "sqnr_db": {
            system: judged(model, graph, held).get("sqnr_db") for system, graph in graphs.items()
        },
        "plans": {
            system: {sm: compile_graph(graph, sm).to_json() for sm in CAPABILITIES}
            for system, graph in graphs.items()
        },
    }


def left_in_float(manifest: Manifest) -> dict[str, int]:
    """Rule → multiply-accumulates of the layers that it keeps in floating point."""
    placement, covered = manifest.passport.placement, manifest.coverage
    work = {node.name: node.macs for node in covered.nodes} if covered is not None else {}
    found: dict[str, int] = {}
    for layer in placement.floating if placement is not None else ():
        found[layer.rule] = found.get(layer.rule, 0) + work.get(layer.node, 0)
    return found


def environment() -> dict[str, str]:
    """The machine, and of what both sides consist."""
    program = "import importlib.metadata as m; print(m.version('nvidia-modelopt'))"
    done = subprocess.run([MODELOPT, "-c", program], capture_output=True, text=True, check=False)
    return {
        "processor": f"{cpu_facts()['name']}, {os.cpu_count()} cores",
        "tensorrt_rtx": f"TensorRT-RTX {importlib.metadata.version('tensorrt_rtx')}",
        "modelopt": f"ModelOpt {done.stdout.strip()}",
    }


def stored() -> dict[str, Any]:
    """Results so far, by network."""
    document = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    return {one["name"]: one for one in document.get("networks", ())}


def store(results: dict[str, Any]) -> None:
    """Keep the results."""
    networks = [results[name] for name in NETWORKS if name in results]
    text = json.dumps({"environment": environment(), "networks": networks}, indent=1)
    STORED.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(STORED, f"{text}\n".encode())


def main() -> int:
    """Measure, store, write the page; 1 where ours is behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="default all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench-placement")
    parser.add_argument("--missing", action="store_true", help="only those without a result")
    parser.add_argument("--improve", type=int, default=0, help="samples that ours is fitted to")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the page")
    arguments = parser.parse_args()
    if wrong := sorted(set(arguments.names) - set(NETWORKS)):
        print(f"no network {', '.join(wrong)}, expected of {', '.join(NETWORKS)}", file=sys.stderr)
        return 2
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in [] if arguments.table else arguments.names or NETWORKS:
        if arguments.missing and name in stored():
            continue
        try:
            found = measure(name, arguments.folder.resolve(), arguments.improve)
        except BuilderError as err:
            print(f"{name}: {err}", file=sys.stderr)
            continue
        store(stored() | {name: found})
        print(*verdicts(found), sep="\n", flush=True)
    document = json.loads(STORED.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(insert_results(page, render(document)), encoding="utf-8")
    lines = [line for one in document["networks"] for line in verdicts(one)]
    return int(any(line.endswith("BEHIND") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
