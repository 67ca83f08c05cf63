"""Load the engine as a service would, and measure what can be measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import ModelError, RequestError, UnsupportedError
from artefacts.words import counted
from benchmarks.accuracy import AccuracyResult, evaluate_all
from benchmarks.accuracy.task import read_task
from graphs.external_data import stored_bytes
from graphs.view import GraphView
from pipeline.baseline import Baseline
from pipeline.built import FP32, INT8, Built, Sessions
from pipeline.drowned import drowned_outputs, reordered_outputs
from pipeline.engine_check import EngineCheck, check_engine
from pipeline.job import Data
from pipeline.judge import Judge, Verdict, drop_verdict
from pipeline.outputs_file import save_outputs
from pipeline.parity import better_preprocessing
from pipeline.promise import Promise
from pipeline.samples import reporting_samples
from pipeline.screen import Screen
from quantization.measure.execution import Run, load_int8

__all__ = ["judge_onnx", "verify", "workable_batch"]


def verify(
    built: Built,
    data: Data,
    promise: Promise | None,
    screen: Screen,
    save_to: Path | None = None,
) -> tuple[EngineCheck, Verdict | None]:
    """Measure the engine beside the FP32 model, and say where everything is.

    Args:
        built: the engine.
        data: the samples.
        promise: that it is held against, if any.
        screen: where results are printed.
        save_to: where outputs are written for Polygraphy, if anywhere.

    Returns:
        What came of the engine against its graph, and of the engine against the promise, if there
        is one: on samples that neither calibration nor search has seen.
    """
    paths, sessions = built.paths, Sessions(built)
    # Reads the model once more, so it comes before there are sessions that hold its weights.
    before, after = stored_bytes(paths.onnx), built.manifest.engine_bytes
    screen.start(f"verify     {paths.engine}")
    engine, check = None, EngineCheck(unmeasured="this machine cannot run it")
    try:
        engine = engines.load(paths.engine)
    except UnsupportedError as err:
        screen.add(f"not run here: {err}")
    else:
        check = check_engine(built, sessions, data, engine)
        (screen.add if check.explained else screen.warn)(str(check))
    # Kept before accuracy is measured, which may end with an error: this is known already.
    engines.add_measured(paths.engine, runtime=check.to_dict())
    verdict = None
    if data.eval_data is not None or data.calib_data is not None:
        verdict = _Measurement(built, sessions, data, promise, screen).run(engine)
    screen.add(f"size {before / 1e6:.2f} MB (ONNX) → {after / 1e6:.2f} MB (engine)")
    screen.add(*(f"wrote {path}" for path in paths.written(since_s=screen.started_s)))
    if save_to is not None:
        screen.add(*save_outputs(built, sessions, data, save_to))
    return check, verdict


@dataclass(frozen=True)
class _Measurement:
    """Accuracy of engine and graphs, said and kept."""

    built: Built
    sessions: Sessions
    data: Data
    promise: Promise | None
    screen: Screen

    @property
    def _engine(self) -> str:
        """What results call the engine."""
        return f"{self.built.manifest.precision.upper()} engine"

    def run(self, engine: engines.Engine | None) -> Verdict | None:
        """What cannot be measured never fails a finished build, only a promise."""
        try:
            reference, *others = self.sessions.others.items()
            running = [] if engine is None else [(self._engine, engine)]
            return self._measure(dict([reference, *running, *others]))
        except (ModelError, RequestError, UnsupportedError) as err:
            self.screen.add(f"accuracy: not measured: {err}")
            if self.promise is not None:
                raise
            return None

    def _measure(self, systems: Mapping[str, Any]) -> Verdict | None:
        """Accuracy on ``--eval-data``, else likeness to FP32 on calibration samples; kept."""
        prepared, reference, data = self.built.prepared, self.built.reference, self.data
        samples = reporting_samples(data, prepared)
        if data.eval_data is not None and samples.unused:
            self.screen.add(f"{samples.path}: {samples.unused} not used")
        inputs = calibrators.input_specs(prepared)
        task = read_task(data.task) if data.task else None
        baseline = Baseline(task)
        with self.screen.bar("samples") as progress:
            results = evaluate_all(
                systems,
                samples,
                task,
                inputs=inputs,
                batch_size=workable_batch(systems[reference], samples, inputs, data.batch),
                reference=reference,
                labelled=data.eval_data is not None and (data.labelled or not samples.unlabelled),
                on_sample=lambda done: progress(done, _length(samples)),
                watch={reference: baseline.add},
            )
        measured = {name: _figures(result) for name, result in results.items()}
        for name, result in results.items():
            self.screen.add(*_sentence(name, result, measured[name], reference))
        engines.add_measured(self.built.paths.engine, accuracy=measured)
        if self.built.manifest.precision == "int8" and self.promise is None:
            last = next((results[name] for name in (self._engine, INT8) if name in results), None)
            view, engine = GraphView(prepared), self.built.paths.engine
            self.screen.add(*reordered_outputs(last, view))
            self.screen.warn(*drowned_outputs(last, view, engine))
        self.screen.warn(
            *baseline.check(
                self.promise,
                lambda fit: better_preprocessing(data, prepared, systems[reference], samples, fit),
            )
        )
        if self.promise is None:
            return None
        verdict = self._held_against(self.promise, systems, results, samples)
        say_verdict(self.promise, verdict, self.screen)
        kept = {"flag": str(self.promise), **verdict.to_dict()}
        engines.add_measured(self.built.paths.engine, promise=kept)
        return verdict

    def _held_against(
        self,
        promise: Promise,
        systems: Mapping[str, Any],
        results: Mapping[str, AccuracyResult],
        samples: calibrators.Samples,
    ) -> Verdict:
        """The engine where it runs here, else its ONNX in float arithmetic."""
        if promise.kind == "drop" and self._engine in results:
            return drop_verdict(promise, results[self.built.reference], results[self._engine])
        exact = self.sessions.reference
        judge = Judge(self.data, self.built.prepared, promise, samples, exact)
        return judge(systems.get(self._engine) or self.sessions.graph)


def judge_onnx(
    data: Data, promise: Promise | None, prepared: onnx.ModelProto, source: Path, screen: Screen
) -> Verdict | None:
    """A model that is built elsewhere held against the promise, in float arithmetic."""
    if promise is None:
        return None
    judge = Judge(data, prepared, promise, reporting_samples(data, prepared))
    verdict = judge(load_int8(quantization.load_model(source)))
    say_verdict(promise, verdict, screen)
    return verdict


def say_verdict(promise: Promise, verdict: Verdict, screen: Screen) -> None:
    """The line about a promise."""
    screen.add(f"promise {promise} {'kept' if verdict.kept else 'missed'}: {verdict}")
    if verdict.kept and verdict.chance:
        screen.add(f"  {verdict.chance}")


def _sentence(
    name: str, result: AccuracyResult, figures: Mapping[str, Any], reference: str
) -> list[str]:
    """One system's line; none where nothing was measured."""
    parts = [_headline(result)] if result.metric else []
    if figures.get("exact"):
        parts.append(f"exact: equal to {reference}")
    elif (level := figures.get("sqnr_db")) is not None:
        against = "FP32" if reference == FP32 else reference
        parts.append(f"SQNR over all samples {level:.1f} dB against {against}")
    elif (same := figures.get("same")) is not None:
        parts.append(f"{same:.2%} of the answers as those of {reference}")
    if parts:
        return [f"{name}: {', '.join(parts)} ({counted(result.samples, 'sample')})"]
    if result.agreement is None:
        return []
    return [
        f"{name}: outputs not compared, their shape depends on the data (NMS, a decoder); "
        "give --eval-data and --task"
    ]


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


def _length(samples: calibrators.Samples) -> int | None:
    try:
        return len(samples)
    except TypeError:
        return None
