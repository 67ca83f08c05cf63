"""Top-1 and top-5 of classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from artefacts.errors import DataError
from benchmarks.accuracy.result import AccuracyResult, Arrays, mean_result, only_output
from calibrators.data import Sample

__all__ = ["ClassificationTask"]


@dataclass(frozen=True, kw_only=True)
class ClassificationTask:
    """One class per sample.

    Attributes:
        output: the output with one score per class; None for the only one.
        label_offset: added to a label to get the model's class, e.g. 1 for a model whose class 0
            is "background".
    """

    output: str | None = None
    label_offset: int = 0

    def scorer(self) -> _ClassificationScorer:
        """A fresh scorer."""
        return _ClassificationScorer(self)


class _ClassificationScorer:
    def __init__(self, task: ClassificationTask) -> None:
        self._task = task
        self._right: dict[str, list[float]] = {"top1": [], "top5": []}

    def add(self, outputs: Arrays, sample: Sample) -> None:
        scores = np.asarray(
            only_output(outputs, self._task.output, "classification"), dtype=np.float64
        ).reshape(-1)
        right = _class_of(sample, self._task.label_offset, scores.size)
        # Ties count against the model: a network that answers all zeros knows nothing.
        better = int(np.sum(scores >= scores[right])) - 1 if np.isfinite(scores[right]) else 5
        self._right["top1"].append(float(better < 1))
        self._right["top5"].append(float(better < 5))

    def result(self) -> AccuracyResult:
        return mean_result("top1", self._right)


def _class_of(sample: Sample, offset: int, classes: int) -> int:
    """The model's class for the sample's label."""
    if sample.label is None or np.size(sample.label) != 1:
        found = "no label" if sample.label is None else f"a label of {np.size(sample.label)} values"
        raise DataError(
            f"sample {sample.name} has {found}, expected one class number; give labelled data, "
            "or another task with --task"
        )
    right = int(np.asarray(sample.label).reshape(())) + offset
    if not 0 <= right < classes:
        raise DataError(
            f"sample {sample.name} has class {right}, expected 0 to {classes - 1} for a model "
            f"with {classes} classes; check the labels, or set label_offset in the task spec"
        )
    return right
