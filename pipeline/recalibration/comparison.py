"""Both engines on the same samples: with labels by the task, without by likeness to FP32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

import calibrators
import engines
from artefacts.decibels import LIMIT_DB
from artefacts.errors import DataError
from artefacts.words import counted
from benchmarks.accuracy import AccuracyResult, compare_accuracy, evaluate_all
from benchmarks.accuracy.result import mean_result
from benchmarks.accuracy.task import read_task
from benchmarks.statistics import (
    Interval,
    McNemar,
    samples_for_difference,
    samples_for_split,
)
from benchmarks.statistics.bootstrap import draw_rounds, interval_of
from pipeline.building import largest_batch
from pipeline.job import Data
from pipeline.judge import levels_db
from pipeline.likeness import Comparison, Likeness
from pipeline.screen import Screen
from quantization.measure.execution import load_onnxruntime

__all__ = ["FEWEST_SAMPLES", "Compared", "Field", "compare"]

FEWEST_SAMPLES = 10
"""Of fewer, resampling says nothing of what others would do; exact tests need no such rule."""
_LEVEL = 0.05
_FLAG = "a comparison without labels"
_SHOWN = {"points": " %", "percent": "", "dB": " dB"}

Arrays = Mapping[str, NDArray[Any]]
System = Callable[[Any], Arrays]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The new engine against the old one, paired: both answered the same samples.

    Attributes:
        metric: that they are compared by.
        unit: of ``gain``: points of a share, percent of any other metric, or dB.
        before: of the old engine.
        after: of the new one.
        gain: how much better the new one is; negative where it is worse.
        interval: 95 % of the gain, by paired bootstrap over samples.
        mcnemar: exact test, where each sample is right or wrong; decides there.
        samples: how many.
        source: where they lie.
    """

    metric: str
    unit: Literal["points", "percent", "dB"]
    before: float
    after: float
    gain: float
    interval: Interval
    mcnemar: McNemar | None
    samples: int
    source: str

    @property
    def verdict(self) -> Literal["better", "worse", "untold"]:
        """Which side of zero the gain is on, if that can be told."""
        if self.mcnemar is not None:
            if self.mcnemar.p_value > _LEVEL:
                return "untold"
            better = self.mcnemar.only_second > self.mcnemar.only_first
            return "better" if better else "worse"
        if self.samples < FEWEST_SAMPLES or self.interval.low <= 0 <= self.interval.high:
            return "untold"
        return "better" if self.gain > 0 else "worse"

    @property
    def enough(self) -> int | None:
        """Samples that would tell a difference as large as this one; None where none would."""
        if self.mcnemar is not None:
            split = self.mcnemar
            return samples_for_split(split.only_first, split.only_second, self.samples)
        found = samples_for_difference(self.gain, self.interval, self.samples)
        return None if found is None else max(found, FEWEST_SAMPLES)

    def __str__(self) -> str:
        said = (
            f"{self.metric} {self.before:.4g} → {self.after:.4g}{_SHOWN[self.unit]}, "
            f"{self.gain:+.3g} {self.unit} [{self.interval.low:.3g}, {self.interval.high:.3g}] on "
            f"{counted(self.samples, 'sample')}"
        )
        if self.mcnemar is None:
            return said
        split = self.mcnemar
        return (
            f"{said}; {split.only_second} right by the new one alone, {split.only_first} by the "
            f"old one alone (McNemar, p {split.p_value:.2g})"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """What the engines are compared on.

    Attributes:
        prepared: the float graph.
        path: its file.
        samples: that neither engine was calibrated with.
        labelled: whether they are labelled.
        data: batch and task.
    """

    prepared: onnx.ModelProto
    path: Path
    samples: calibrators.Samples
    labelled: bool
    data: Data

    def batch(self, *manifests: engines.Manifest) -> int:
        """Samples that both engines and the model take at once."""
        limits = [largest_batch(m.profiles, self.data, self.prepared) for m in manifests]
        inputs = calibrators.input_specs(self.prepared)
        return calibrators.evaluation_batch(inputs, min([self.data.batch, *limits]))


def compare(before: Path, after: Path, field: Field, screen: Screen) -> Compared:
    """Run both engines on the samples.

    Raises:
        EngineError: this machine's libraries load one of them no more.
        UnsupportedError: this machine has no device for one.
        DataError: the outputs cannot be compared, or labels do not fit.
        ModelError: onnxruntime does not run the float model, where there are no labels.
    """
    with engines.load(before) as old, engines.load(after) as new:
        batch = field.batch(old.manifest, new.manifest)
        if field.labelled:
            return _by_labels(old, new, field, batch, screen)
        exact = load_onnxruntime(field.path)
        try:
            levels = Comparison(field.prepared, _FLAG, levels=True)
        except DataError:  # no floats of a fixed shape: whether the answers are those of FP32
            answers = Comparison(field.prepared, _FLAG, levels=False)
            pairs = _pairs(answers, exact, old, new, field, batch)
            return _by_answers(answers, pairs, field)
        return _by_levels(_pairs(levels, exact, old, new, field, batch), field)


def _by_labels(old: System, new: System, field: Field, batch: int, screen: Screen) -> Compared:
    with screen.bar("samples") as progress:
        found = evaluate_all(
            {"old": old, "new": new},
            field.samples,
            read_task(field.data.task) if field.data.task else None,
            inputs=calibrators.input_specs(field.prepared),
            batch_size=batch,
            on_sample=lambda done: progress(done, None),
        )
    return _of_results(found["old"], found["new"], field.samples.path)


def _pairs(
    comparison: Comparison, exact: System, old: System, new: System, field: Field, batch: int
) -> list[tuple[Likeness, Likeness]]:
    """Of each sample, how like FP32 the old engine and the new one are."""
    found: list[tuple[Likeness, Likeness]] = []
    inputs = calibrators.input_specs(field.prepared)
    for each in calibrators.batches(field.samples, batch, inputs=inputs):
        wanted = exact(each.inputs)
        rows = [list(comparison.rows(each, wanted, system(each.inputs))) for system in (old, new)]
        found += zip(*rows, strict=True)
    return found


def _by_levels(pairs: list[tuple[Likeness, Likeness]], field: Field) -> Compared:
    """SQNR over all samples, that of the worst output; the same draws for both engines."""
    draws, whole = draw_rounds(len(pairs)), np.ones((1, len(pairs)))
    drawn: list[NDArray[np.float64]] = []
    levels: list[NDArray[np.float64]] = []
    for system in (0, 1):
        signal = np.array([pair[system].signal for pair in pairs])
        noise = np.array([pair[system].noise for pair in pairs])
        for weights, to in ((draws, drawn), (whole, levels)):
            found = levels_db(weights @ signal, weights @ noise).min(axis=1)
            to.append(np.clip(found, -LIMIT_DB, LIMIT_DB))
    return Compared(
        metric="SQNR against FP32",
        unit="dB",
        before=float(levels[0][0]),
        after=float(levels[1][0]),
        gain=float(levels[1][0] - levels[0][0]),
        interval=interval_of(drawn[1] - drawn[0]),
        mcnemar=None,
        samples=len(pairs),
        source=field.samples.path,
    )


def _by_answers(
    comparison: Comparison, pairs: list[tuple[Likeness, Likeness]], field: Field
) -> Compared:
    """Share of answers that are those of FP32."""
    name = "same answer as FP32"
    old, new = (
        mean_result(name, {name: [comparison.require_answers(pair[system]) for pair in pairs]})
        for system in (0, 1)
    )
    return _of_results(old, new, field.samples.path)


def _of_results(old: AccuracyResult, new: AccuracyResult, source: str) -> Compared:
    drop = compare_accuracy(old, new)
    scale = 100.0 if old.unit == "share" else 1.0
    return Compared(
        metric=drop.metric,
        unit=drop.unit,
        before=scale * old.value,
        after=scale * new.value,
        gain=0.0 - drop.drop,
        interval=Interval(low=0.0 - drop.interval.high, high=0.0 - drop.interval.low),
        mcnemar=drop.mcnemar,
        samples=old.samples,
        source=source,
    )
