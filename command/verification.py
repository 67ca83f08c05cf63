"""Load the engine as a service would, and measure what can be measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
from artefacts.errors import UnsupportedError
from benchmarks.accuracy import AccuracyResult, evaluate_all
from benchmarks.accuracy.task import read_task
from benchmarks.onnx_system import OnnxSystem
from command.calibration import calibration_samples, evaluation_samples
from command.flags import SUFFIXES, Job
from command.screen import Screen

__all__ = ["verify"]

FP32 = "FP32 ONNX"
LIKENESS_SAMPLES = 32
LARGEST_GAP_DB = 3.0  # INT8 kernels of two runtimes differ by rounding, far less than this


def verify(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    manifest: engines.Manifest,
    screen: Screen,
) -> None:
    """Measure the engine beside the FP32 model, and say where everything is."""
    screen.start(f"verify     {job.engine}")
    kind = job.precision.upper()
    systems: dict[str, Any] = {FP32: OnnxSystem(job.onnx)}
    try:
        systems[f"{kind} engine"] = engines.load(job.engine)
    except UnsupportedError as err:
        screen.add(f"not run here: {err}")
    if job.precision == "int8":
        systems["INT8 ONNX"] = OnnxSystem(source)
    if job.eval_data is not None or job.calib_data is not None:
        _measure(job, prepared, systems, screen)
    before, after = job.onnx.stat().st_size, manifest.engine_bytes
    screen.add(f"size {before / 1e6:.2f} MB (ONNX) → {after / 1e6:.2f} MB (engine)")
    screen.add(*(f"wrote {path}" for path in _written(job, since_s=screen.started_s)))


def _measure(
    job: Job, prepared: onnx.ModelProto, systems: Mapping[str, Any], screen: Screen
) -> None:
    """Accuracy on ``--eval-data``, else likeness to FP32 on calibration samples; kept."""
    labelled = job.eval_data is not None
    samples = (
        evaluation_samples(job, prepared)
        if labelled
        else calibration_samples(job, prepared)[:LIKENESS_SAMPLES]
    )
    with screen.bar("samples") as progress:
        results = evaluate_all(
            systems,
            samples,
            read_task(job.task) if job.task else None,
            inputs=calibrators.input_specs(prepared),
            batch_size=job.calib_batch,
            reference=FP32,
            labelled=labelled,
            on_sample=lambda done: progress(done, _length(samples)),
        )
    measured = {name: _figures(result) for name, result in results.items()}
    for name, result in results.items():
        parts = [_headline(result)] if result.metric else []
        if (level := measured[name].get("sqnr_db")) is not None:
            parts.append(f"SQNR {level:.1f} dB against FP32")
        if parts:
            screen.add(f"{name}: {', '.join(parts)} ({result.samples} samples)")
    engines.add_measured(job.engine, accuracy=measured)
    _warn_if_engine_differs(measured, screen)


def _headline(result: AccuracyResult) -> str:
    """The figure by name; shares as percent, anything else (an error, a custom metric) as it is."""
    shown = f"{result.value:.2%}" if result.unit == "share" else f"{result.value:.4g}"
    return f"{result.metric} {shown}"


def _figures(result: AccuracyResult) -> dict[str, Any]:
    figures: dict[str, Any] = dict(result.figures, samples=result.samples)
    if result.agreement is not None:
        levels = [output.sqnr_db for output in result.agreement.outputs.values()]
        figures["sqnr_db"] = min((level for level in levels if level is not None), default=None)
    return figures


def _warn_if_engine_differs(measured: Mapping[str, Mapping[str, Any]], screen: Screen) -> None:
    """A runtime that computes something else than its model says: never keep that quiet."""
    engine, model = (measured.get(f"INT8 {kind}", {}).get("sqnr_db") for kind in ("engine", "ONNX"))
    if engine is not None and model is not None and engine < model - LARGEST_GAP_DB:
        screen.add(
            f"warning: the engine is {model - engine:.1f} dB further from FP32 than its own ONNX "
            "in onnxruntime, expected about the same; do not ship it before you know why"
        )


def _length(samples: calibrators.Samples) -> int | None:
    try:
        return len(samples)
    except TypeError:
        return None


def _written(job: Job, *, since_s: float) -> list[Path]:
    """The files of this job, in the order of the steps; none that an earlier one left there."""
    paths = [*map(job.beside, SUFFIXES), job.engine, Path(f"{job.engine}.json")]
    return [path for path in paths if path.is_file() and path.stat().st_mtime >= since_s]
