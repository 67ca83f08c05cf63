"""A metric of the user's own, as a Python callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from artefacts.errors import DataError
from benchmarks.accuracy.result import AccuracyResult, Arrays, Unit, mean_result
from calibrators.samples.data import Sample

__all__ = ["CustomTask"]


@dataclass(frozen=True, kw_only=True)
class CustomTask:
    """The mean over samples of ``score(outputs, label)``.

    Attributes:
        score: from ``{output: array}`` with a batch axis of one and the label to a number.
        name: of the figure.
        unit: ``share`` for scores in [0, 1], shown in percent; else ``number``.
        higher_is_better: whether a larger score is the better one.
    """

    score: Callable[[Arrays, object], float]
    name: str = "score"
    unit: Unit = "share"
    higher_is_better: bool = True

    def scorer(self) -> _CustomScorer:
        """A fresh scorer."""
        return _CustomScorer(self)


class _CustomScorer:
    def __init__(self, task: CustomTask) -> None:
        self._task = task
        self._scores: list[float] = []

    def add(self, outputs: Arrays, sample: Sample) -> None:
        value = self._task.score(outputs, sample.label)
        if not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise DataError(
                f"metric {self._task.name} gives {value!r} for sample {sample.name}, expected a "
                "finite number; mend the metric"
            )
        self._scores.append(float(value))

    def result(self) -> AccuracyResult:
        task = self._task
        return mean_result(
            task.name,
            {task.name: self._scores},
            unit=task.unit,
            higher_is_better=task.higher_is_better,
        )
