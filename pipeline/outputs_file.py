"""Outputs as Polygraphy reads them, so that it can compare the engine on another machine."""

from __future__ import annotations

import math
from pathlib import Path
from shlex import quote
from typing import Any

import engines
from artefacts.files import write_atomic
from artefacts.libraries import require
from pipeline.built import Built, Sessions
from pipeline.engine_check import ALL_CHOSEN, compared_outputs, float_limit
from pipeline.job import Data
from pipeline.runtime_gap import GapMeter
from pipeline.samples import Arrays, trial_requests

__all__ = ["inputs_beside", "save_outputs"]

MOST_BYTES = 256 << 20
RUNS = {
    "tensorrt": "polygraphy run {engine} --trt",
    "tensorrt_rtx": "POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy run {engine} --trt",
    # It runs no engines of OpenVINO: the graph.
    "openvino": "polygraphy run {graph} --onnxrt --graph-optimization-level ORT_DISABLE_ALL",
}


def inputs_beside(path: Path) -> Path:
    """``out/outputs.json`` → ``out/outputs.inputs.json``."""
    return path.with_suffix(f".inputs{path.suffix}")


def save_outputs(built: Built, sessions: Sessions, data: Data, path: Path) -> list[str]:
    """Write a few samples and what the graph of the engine makes of them.

    Args:
        built: the engine.
        sessions: its graph, as it is written, and the float network beside it.
        data: the samples.
        path: of the outputs; the inputs lie beside it.

    Returns:
        What to say: the files, and the command that compares.

    Raises:
        ModelError: onnxruntime does not run the graph.
        MissingLibraryError: Polygraphy is not installed.
    """
    names = compared_outputs(built)
    if not names:
        return [f"{path} not written: {ALL_CHOSEN}"]
    comparator = require("polygraphy.comparator", extra="tensorrt")
    encode = require("polygraphy.json", extra="tensorrt").to_json
    inputs, outputs, limit_db = _run(built, sessions, data, names)
    results = comparator.RunResults()
    results.add(outputs, runner_name=f"{built.source.name} as written")
    files = {path: results, inputs_beside(path): inputs}
    for file, content in files.items():
        write_atomic(file, encode(content).encode())
    runs = RUNS[engines.runtime_of(built.manifest.target).library]
    command = (
        f"{runs.format(engine=quote(str(built.paths.engine)), graph=quote(str(built.source)))} "
        f"--load-inputs {quote(str(inputs_beside(path)))} --load-outputs {quote(str(path))} "
        f"--compare snr --snr-threshold {math.floor(10 * limit_db) / 10}"
    )
    return [
        *(f"wrote {file}" for file in files),
        "to compare on another machine, with Polygraphy 0.53 or later:",
        f"  {command}",
    ]


def _run(
    built: Built, sessions: Sessions, data: Data, names: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """Inputs and outputs, and the SQNR above which rounding explains any difference."""
    inputs: list[dict[str, Any]] = []
    outputs: list[dict[str, Any]] = []
    limits_db: list[float] = []
    held_bytes = 0
    for request in trial_requests(data, built.prepared, 1)[0]:
        if held_bytes > MOST_BYTES:
            break
        written = sessions.graph(request)
        inputs.append(dict(request))
        outputs.append({name: written[name] for name in names})
        held_bytes += sum(a.nbytes for a in (*inputs[-1].values(), *outputs[-1].values()))
        limits_db.append(_limit(built, sessions, request, outputs[-1]))
    return inputs, outputs, min(limits_db)


def _limit(built: Built, sessions: Sessions, request: Arrays, written: Arrays) -> float:
    """Of one sample: Polygraphy holds each to the threshold."""
    meter = GapMeter(batch=1, limit_db=float_limit(built.manifest))
    plain = None if sessions.plain is None else sessions.plain(request)
    meter.add(plain, written, written, written)
    return min(gap.limit_db for gap in meter.gaps())
