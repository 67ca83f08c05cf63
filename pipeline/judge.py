"""How a model is held against a promise on accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import calibrators
from artefacts.decibels import sqnr_db
from artefacts.files import digest_of, sha256_bytes, sha256_file
from artefacts.words import counted
from benchmarks.accuracy import AccuracyResult, compare_accuracy, evaluate
from benchmarks.accuracy.evaluation import Watch
from benchmarks.accuracy.task import Task, read_task
from benchmarks.statistics import samples_to_narrow
from benchmarks.statistics.bootstrap import draw_rounds, interval_of
from pipeline.baseline import Baseline
from pipeline.job import Data
from pipeline.likeness import Comparison, Likeness
from pipeline.parity import better_preprocessing
from pipeline.parts import KEPT_BYTES
from pipeline.promise import Promise
from quantization.measure.execution import Load, Run, load_onnxruntime
from quantization.search.problem import Goal

__all__ = ["Judge", "Scorer", "Verdict", "drop_verdict", "levels_db"]

Arrays = Mapping[str, NDArray[Any]]
System = Callable[[Any], Arrays]
SQNR = "dB SQNR"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One model held against a promise.

    Attributes:
        score: see :class:`Promise`; infinite SQNR where outputs are equal.
        interval: 95 % bootstrap interval of the score, over samples.
        samples: how many were judged by.
        goal: the promise, with its unit.
    """

    score: float
    interval: tuple[float, float]
    samples: int
    goal: Goal

    @property
    def kept(self) -> bool:
        """The evaluation is deterministic, so the score itself is held against the promise."""
        return self.goal.kept(self.score)

    @property
    def cautious(self) -> float:
        """What a search goes by: a level must be kept on samples that it has not seen.

        The lower end for SQNR, which some decibels of noise lift. A share of samples moves in
        steps of one sample, and its lower end would ask for no difference at all.
        """
        return self.interval[0] if self.goal.unit == SQNR else self.score

    @property
    def chance(self) -> str:
        """What chance alone does to a share on so few samples, where that hides what is promised.

        Empty where it does not, and for levels, which are judged by their lower end.
        """
        if self.goal.unit == SQNR:
            return ""
        limit = abs(self.goal.minimum) if self.goal.drop else 100.0 - self.goal.minimum
        enough = samples_to_narrow(self.interval, limit, self.samples) if limit > 0 else None
        if enough is None:
            return ""
        half = (self.interval[1] - self.interval[0]) / 2
        return (
            f"on {counted(self.samples, 'sample')} chance alone moves it by {half:.2g} either way, "
            f"more than the {limit:g} that are promised; about {_about(enough)} would tell"
        )

    def __str__(self) -> str:
        low, high = sorted(0.0 - end if self.goal.drop else end for end in self.interval)
        said = self.goal.say(self.score)
        return f"{said} [{low:.3g}, {high:.3g}] on {counted(self.samples, 'sample')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; numbers that are not finite (equal outputs) are null."""
        return {
            "score": _finite(self.score),
            "interval": [_finite(end) for end in self.interval],
            "unit": self.goal.unit,
            "samples": self.samples,
            "kept": self.kept,
        }


def _about(number: int) -> str:
    """Two digits of a number of samples."""
    return f"{float(f'{number:.2g}'):,.0f}"


def drop_verdict(promise: Promise, plain: AccuracyResult, found: AccuracyResult) -> Verdict:
    """Two results of one evaluation held against ``--max-drop``."""
    drop = compare_accuracy(plain, found)
    return Verdict(
        score=0.0 - drop.drop,
        interval=(0.0 - drop.interval.high, 0.0 - drop.interval.low),
        samples=plain.samples,
        goal=_drop_goal(promise, plain),
    )


def _drop_goal(promise: Promise, plain: AccuracyResult) -> Goal:
    return promise.goal(f"{'points' if plain.unit == 'share' else 'percent'} of {plain.metric}")


class Judge:
    """Holds models against a promise on one part of the samples.

    Args:
        data: batch and task.
        prepared: the float model.
        promise: on it.
        samples: to judge by.
        exact: the float model, where it is open already.

    Raises:
        DataError: a drop is promised of a baseline near chance, or the outputs cannot be compared.
    """

    def __init__(
        self,
        data: Data,
        prepared: onnx.ModelProto,
        promise: Promise,
        samples: calibrators.Samples,
        exact: Run | None = None,
    ) -> None:
        self._promise = promise
        self._samples = samples
        self._inputs = calibrators.input_specs(prepared)
        self._batch = calibrators.evaluation_batch(self._inputs, data.batch)
        self._task: Task | None = read_task(data.task) if data.task else None
        self._task_path = data.task
        self._known: list[Arrays] = []
        self._kept_bytes = 0
        levels = promise.kind == "sqnr"
        self._comparison = Comparison(prepared, str(promise), levels=levels)
        self._exact = load_onnxruntime(prepared) if exact is None else exact
        self._plain: AccuracyResult | None = None
        if promise.kind == "drop":
            baseline = Baseline(self._task)
            self._plain = self._accuracy(self._exact, baseline.add)
            run = self._exact
            baseline.check(
                promise, lambda fit: better_preprocessing(data, prepared, run, samples, fit)
            )

    @property
    def digest(self) -> str:
        """Of everything that a score depends on beside the model."""
        task = sha256_file(self._task_path) if self._task_path else ""
        return f"{digest_of([sample.digest for sample in self._samples])} {task}"

    @property
    def goal(self) -> Goal:
        """The promise, with the unit of this task."""
        if self._plain is not None:
            return _drop_goal(self._promise, self._plain)
        units = {"sqnr": SQNR, "agreement": "% of samples with the same top-1 as FP32"}
        return self._promise.goal(units[self._promise.kind])

    def __call__(self, system: System) -> Verdict:
        """Run a model on every sample.

        Raises:
            DataError: agreement is asked of a model without class scores, or labels do not fit.
        """
        if self._plain is not None:
            return drop_verdict(self._promise, self._plain, self._accuracy(system))
        likeness = list(self._likeness(system))
        draws = draw_rounds(len(self._samples))
        if self._promise.kind == "sqnr":
            signal = np.array([entry.signal for entry in likeness])
            noise = np.array([entry.noise for entry in likeness])
            # The worst output counts: each has a scale of its own.
            levels = levels_db(draws @ signal, draws @ noise).min(axis=1)
            score = float(levels_db(signal.sum(axis=0), noise.sum(axis=0)).min())
        else:
            same = np.array([self._comparison.require_answers(entry) for entry in likeness])
            levels = 100.0 * (draws @ same) / len(self._samples)
            score = 100.0 * float(same.mean())
        # Equal outputs have infinite levels, which no percentile interpolates between.
        ends = interval_of(np.where(np.isfinite(levels), levels, np.finfo(np.float64).max))
        return self._verdict(score, (ends.low, ends.high))

    def _verdict(self, score: float, interval: tuple[float, float]) -> Verdict:
        limit = float(np.finfo(np.float64).max)
        low, high = (math.inf if end >= limit else end for end in interval)
        return Verdict(
            score=score, interval=(low, high), samples=len(self._samples), goal=self.goal
        )

    def _accuracy(self, system: System, watch: Watch | None = None) -> AccuracyResult:
        return evaluate(
            system,
            self._samples,
            self._task,
            inputs=self._inputs,
            batch_size=self._batch,
            watch=watch,
        )

    def _reference(self, number: int, inputs: Arrays) -> Arrays:
        """FP32 outputs of a batch, run once where memory allows to keep them."""
        if number < len(self._known):
            return self._known[number]
        outputs = self._exact(inputs)
        self._kept_bytes += sum(values.nbytes for values in outputs.values())
        # In order and never with holes: a batch that does not fit ends the keeping.
        if number == len(self._known) and self._kept_bytes <= KEPT_BYTES:
            self._known.append(outputs)
        return outputs

    def _likeness(self, system: System) -> Iterator[Likeness]:
        batches = calibrators.batches(self._samples, self._batch, inputs=self._inputs)
        for number, batch in enumerate(batches):
            exact, found = self._reference(number, batch.inputs), system(batch.inputs)
            yield from self._comparison.rows(batch, exact, found)


class Scorer:
    """Scores models on the selection part, each once."""

    def __init__(self, judge: Judge, load: Load) -> None:
        self._judge = judge
        self._load = load
        self._known: dict[str, float] = {}

    def __call__(self, model: onnx.ModelProto) -> float:
        """The score that a search goes by."""
        # The search begins with a model that was scored before it; a score is a pass over all.
        digest = sha256_bytes(model.SerializeToString())
        if digest not in self._known:
            self._known[digest] = self._judge(self._load(model)).cautious
        return self._known[digest]


def levels_db(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sqnr_db`` of arrays, element by element."""
    return np.asarray(np.vectorize(sqnr_db, otypes=[np.float64])(signal, noise))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
