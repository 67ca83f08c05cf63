"""Load the engine as a service would, and measure what can be measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import UnsupportedError
from benchmarks.accuracy import AccuracyResult, evaluate_all
from benchmarks.accuracy.task import read_task
from benchmarks.onnx_system import OnnxSystem
from command.baseline import Baseline
from command.calibration import calibration_samples, evaluation_samples
from command.flags import SUFFIXES, Job
from command.promise import Judge, Promise, Verdict, drop_verdict, judging_parts, promise_of
from command.screen import Screen
from quantization.execution import load_int8

__all__ = ["judge_onnx", "verify"]

FP32 = "FP32 ONNX"
LIKENESS_SAMPLES = 32
LARGEST_GAP_DB = 3.0  # INT8 kernels of two runtimes differ by rounding, far less than this


def verify(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    manifest: engines.Manifest,
    screen: Screen,
) -> Verdict | None:
    """Measure the engine beside the FP32 model, and say where everything is.

    Returns:
        The engine held against the promise of the flags, if they make one: on samples that
        neither calibration nor search has seen.
    """
    screen.start(f"verify     {job.engine}")
    kind = job.precision.upper()
    systems: dict[str, Any] = {FP32: OnnxSystem(job.onnx)}
    try:
        systems[f"{kind} engine"] = engines.load(job.engine)
    except UnsupportedError as err:
        screen.add(f"not run here: {err}")
    if job.precision == "int8":
        systems["INT8 ONNX"] = OnnxSystem(source)
    verdict = None
    if job.eval_data is not None or job.calib_data is not None:
        verdict = _measure(job, prepared, source, systems, screen)
    before, after = job.onnx.stat().st_size, manifest.engine_bytes
    screen.add(f"size {before / 1e6:.2f} MB (ONNX) → {after / 1e6:.2f} MB (engine)")
    screen.add(*(f"wrote {path}" for path in _written(job, since_s=screen.started_s)))
    return verdict


def _measure(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    systems: Mapping[str, Any],
    screen: Screen,
) -> Verdict | None:
    """Accuracy on ``--eval-data``, else likeness to FP32 on calibration samples; kept."""
    samples = _samples(job, prepared)
    labelled = job.eval_data is not None and not (job.label_free and samples.unlabelled)
    task = read_task(job.task) if job.task else None
    baseline = Baseline(task)
    with screen.bar("samples") as progress:
        results = evaluate_all(
            systems,
            samples,
            task,
            inputs=calibrators.input_specs(prepared),
            batch_size=job.calib_batch,
            reference=FP32,
            labelled=labelled,
            on_sample=lambda done: progress(done, _length(samples)),
            watch={FP32: baseline.add},
        )
    measured = {name: _figures(result) for name, result in results.items()}
    for name, result in results.items():
        parts = [_headline(result)] if result.metric else []
        if (level := measured[name].get("sqnr_db")) is not None:
            parts.append(f"SQNR {level:.1f} dB against FP32")
        elif (same := measured[name].get("same")) is not None:
            parts.append(f"{same:.2%} of the answers as FP32's")
        if parts:
            screen.add(f"{name}: {', '.join(parts)} ({result.samples} samples)")
        elif result.agreement is not None:
            screen.add(
                f"{name}: not compared, the shape of its outputs depends on what is chosen; labels "
                "tell more: --eval-data with a --task"
            )
    engines.add_measured(job.engine, accuracy=measured)
    _warn_if_engine_differs(measured, screen)
    screen.add(*baseline.check(job))
    promise = promise_of(job)
    if promise is None:
        return None
    verdict = _held_against(promise, job, prepared, source, systems, results, samples)
    screen.add(f"promise {promise} {'kept' if verdict.kept else 'missed'}: {verdict}")
    engines.add_measured(job.engine, promise={"flag": str(promise), **verdict.to_dict()})
    return verdict


def judge_onnx(job: Job, prepared: onnx.ModelProto, source: Path, screen: Screen) -> Verdict | None:
    """A model that is built elsewhere held against the promise, in float arithmetic."""
    promise = promise_of(job)
    if promise is None:
        return None
    judge = Judge(job, prepared, promise, _samples(job, prepared))
    verdict = judge(load_int8(quantization.load_model(source)))
    screen.add(f"promise {promise} {'kept' if verdict.kept else 'missed'}: {verdict}")
    return verdict


def _samples(job: Job, prepared: onnx.ModelProto) -> calibrators.Samples:
    """What to measure on: nothing that a search may have seen."""
    if job.holds_out or (job.searched and job.eval_data is not None):
        return judging_parts(job, prepared)[1]
    if job.eval_data is not None:
        return evaluation_samples(job, prepared)
    return calibration_samples(job, prepared)[:LIKENESS_SAMPLES]


def _held_against(
    promise: Promise,
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    systems: Mapping[str, Any],
    results: Mapping[str, AccuracyResult],
    samples: calibrators.Samples,
) -> Verdict:
    """The engine where it runs here, else its ONNX in float arithmetic."""
    engine = f"{job.precision.upper()} engine"
    if promise.kind == "drop" and engine in results:
        return drop_verdict(promise, results[FP32], results[engine])
    judge = Judge(job, prepared, promise, samples)
    return judge(systems.get(engine) or load_int8(quantization.load_model(source)))


def _headline(result: AccuracyResult) -> str:
    """The figure by name; shares as percent, anything else (an error, a custom metric) as it is."""
    shown = f"{result.value:.2%}" if result.unit == "share" else f"{result.value:.4g}"
    return f"{result.metric} {shown}"


def _figures(result: AccuracyResult) -> dict[str, Any]:
    figures: dict[str, Any] = dict(result.figures, samples=result.samples)
    if result.agreement is not None:
        levels = [output.sqnr_db for output in result.agreement.outputs.values()]
        figures["sqnr_db"] = min((level for level in levels if level is not None), default=None)
        figures["same"] = result.agreement.top1
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
