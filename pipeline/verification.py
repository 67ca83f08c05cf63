"""Load the engine as a service would, and measure what can be measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import GateMissedError, ModelError, RequestError, UnsupportedError
from artefacts.words import counted
from benchmarks.accuracy import AccuracyResult, evaluate_all
from benchmarks.accuracy.task import read_task
from pipeline.baseline import Baseline
from pipeline.calibration import calibration_samples, evaluation_samples
from pipeline.engine_check import EngineCheck, check_engine
from pipeline.flags import SUFFIXES, Job
from pipeline.parity import better_preprocessing
from pipeline.promise import Judge, Promise, Verdict, drop_verdict, judging_parts, promise_of
from pipeline.screen import Screen
from quantization.measure.execution import Run, load_int8, load_onnxruntime

__all__ = [
    "judge_onnx",
    "reference_name",
    "refuse_gap",
    "verify",
    "workable_batch",
    "written",
]

FP32 = "FP32 ONNX"
LIKENESS_SAMPLES = 32


def verify(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    manifest: engines.Manifest,
    screen: Screen,
) -> tuple[EngineCheck, Verdict | None]:
    """Measure the engine beside the FP32 model, and say where everything is.

    Returns:
        What came of the engine against its graph, and of the engine against the promise of the
        flags, if they make one: on samples that neither calibration nor search has seen.
    """
    screen.start(f"verify     {job.engine}")
    engine, check = None, EngineCheck(unmeasured="this machine cannot run it")
    try:
        engine = engines.load(job.engine)
    except UnsupportedError as err:
        screen.add(f"not run here: {err}")
    else:
        check = check_engine(job, prepared, source, manifest, engine)
        (screen.add if check.explained else screen.warn)(str(check))
    engines.add_measured(job.engine, runtime=check.to_dict())
    verdict = None
    if job.eval_data is not None or job.calib_data is not None:
        verdict = _measured(job, prepared, source, engine, screen)
    before, after = job.onnx.stat().st_size, manifest.engine_bytes
    screen.add(f"size {before / 1e6:.2f} MB (ONNX) → {after / 1e6:.2f} MB (engine)")
    screen.add(*(f"wrote {path}" for path in written(job, since_s=screen.started_s)))
    return check, verdict


def _measured(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    engine: engines.Engine | None,
    screen: Screen,
) -> Verdict | None:
    """Accuracy of engine and graphs; what cannot be measured never fails a finished build."""
    kind = job.precision.upper()
    reference = reference_name(prepared)
    try:
        systems: dict[str, Any] = {reference: _reference(job, prepared)}
        if engine is not None:
            systems[f"{kind} engine"] = engine
        if job.precision == "int8" and not job.implicit and _is_other(job, prepared, source):
            systems["INT8 ONNX"] = load_int8(source)
        return _measure(job, prepared, source, systems, screen)
    except (ModelError, RequestError, UnsupportedError) as err:
        screen.add(f"accuracy: not measured: {err}")
        if promise_of(job) is not None:
            raise
        return None


def reference_name(prepared: onnx.ModelProto) -> str:
    """What others are compared with: the float model, or the graph that came quantized."""
    return FP32 if quantization.quantized_format(prepared) is None else "its ONNX"


def _reference(job: Job, prepared: onnx.ModelProto) -> Run:
    """The prepared model, since the user's file may be one that onnxruntime does not run."""
    if quantization.quantized_format(prepared) is not None:
        return load_int8(prepared)
    path = job.beside(".prepared.onnx")
    return load_onnxruntime(path if path.is_file() else prepared)


def _is_other(job: Job, prepared: onnx.ModelProto, source: Path) -> bool:
    """Whether what was built is another graph than the reference, and not the model as it came."""
    return quantization.quantized_format(prepared) is None or source != job.beside(".int8.onnx")


def _measure(
    job: Job,
    prepared: onnx.ModelProto,
    source: Path,
    systems: Mapping[str, Any],
    screen: Screen,
) -> Verdict | None:
    """Accuracy on ``--eval-data``, else likeness to FP32 on calibration samples; kept."""
    samples, reference = _samples(job, prepared), reference_name(prepared)
    if job.eval_data is not None and samples.unused:
        screen.add(f"{samples.path}: {samples.unused} not used")
    inputs = calibrators.input_specs(prepared)
    labelled = job.eval_data is not None and not (job.label_free and samples.unlabelled)
    task = read_task(job.task) if job.task else None
    baseline = Baseline(task)
    with screen.bar("samples") as progress:
        results = evaluate_all(
            systems,
            samples,
            task,
            inputs=inputs,
            batch_size=workable_batch(systems[reference], samples, inputs, job.calib_batch),
            reference=reference,
            labelled=labelled,
            on_sample=lambda done: progress(done, _length(samples)),
            watch={reference: baseline.add},
        )
    measured = {name: _figures(result) for name, result in results.items()}
    for name, result in results.items():
        parts = [_headline(result)] if result.metric else []
        if measured[name].get("exact"):
            parts.append(f"exact: equal to {reference}")
        elif (level := measured[name].get("sqnr_db")) is not None:
            against = "FP32" if reference == FP32 else reference
            parts.append(f"SQNR {level:.1f} dB against {against}")
        elif (same := measured[name].get("same")) is not None:
            parts.append(f"{same:.2%} of the answers as those of {reference}")
        if parts:
            screen.add(f"{name}: {', '.join(parts)} ({counted(result.samples, 'sample')})")
        elif result.agreement is not None:
            screen.add(
                f"{name}: not compared, the shape of its outputs depends on what is chosen; labels "
                "tell more: --eval-data with a --task"
            )
    engines.add_measured(job.engine, accuracy=measured)
    run = systems[reference]
    screen.warn(*baseline.check(job, lambda fit: better_preprocessing(job, prepared, run, fit)))
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
        return drop_verdict(promise, results[reference_name(prepared)], results[engine])
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
        figures["exact"] = bool(levels) and all(level is None for level in levels)
        figures["sqnr_db"] = min((level for level in levels if level is not None), default=None)
        figures["same"] = result.agreement.top1
    return figures


def workable_batch(
    reference: Run,
    samples: calibrators.Samples,
    inputs: Sequence[calibrators.InputSpec],
    wanted: int,
) -> int:
    """``wanted``, or 1 where the model itself takes no more than one sample at a time."""
    first = next(iter(calibrators.batches(samples[:wanted], wanted, inputs=inputs)), None)
    if first is None or wanted == 1:
        return wanted
    try:
        reference(first.inputs)
    except ModelError:
        return 1
    return wanted


def refuse_gap(job: Job, check: EngineCheck) -> None:
    """End with exit code 1 where the engine computes something else than its graph.

    Raises:
        GateMissedError: how far they are apart, from which layer on, and why.
    """
    if check.explained or job.allow_runtime_gap:
        return
    raise GateMissedError(
        f"{check}; do not ship {job.engine} before you know why, or accept it with "
        "--allow-runtime-gap"
    )


def _length(samples: calibrators.Samples) -> int | None:
    try:
        return len(samples)
    except TypeError:
        return None


def written(job: Job, *, since_s: float) -> list[Path]:
    """The files of this job, in the order of the steps; none that an earlier one left there."""
    paths = [*map(job.beside, SUFFIXES), job.engine, Path(f"{job.engine}.json")]
    return [path for path in paths if path.is_file() and path.stat().st_mtime >= since_s]
