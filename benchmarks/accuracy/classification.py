"""Top-1 and top-5 of classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError
from benchmarks.accuracy.result import AccuracyResult, Arrays, mean_result, only_output
from calibrators.samples.data import Sample

__all__ = ["ClassificationTask", "class_of", "class_scores", "is_among_best"]

Scores = npt.NDArray[np.float64]


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
        scores = class_scores(outputs, self._task)
        right = class_of(sample, self._task.label_offset, scores.size)
        for name, count in (("top1", 1), ("top5", 5)):
            self._right[name].append(float(is_among_best(scores, right, count)))

    def result(self) -> AccuracyResult:
        return mean_result("top1", self._right)


def class_scores(outputs: Arrays, task: ClassificationTask) -> Scores:
    """One score per class, (classes,).

    Raises:
        DataError: the task's output is not there, or several are and it names none.
    """
    scores = only_output(outputs, task.output, "classification")
    return np.asarray(scores, dtype=np.float64).reshape(-1)


def is_among_best(scores: Scores, right: int, count: int) -> bool:
    """Whether the right class is among so many with the best scores.

    Ties count against the model: a network that answers all zeros knows nothing.
    """
    return bool(np.isfinite(scores[right]) and np.sum(scores >= scores[right]) <= count)


def class_of(sample: Sample, offset: int, classes: int) -> int:
    """The model's class for the sample's label.

    Args:
        sample: labelled.
        offset: added to the label.
        classes: how many the model has.

    Raises:
        DataError: the sample has no single label, or the model no such class.
    """
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
