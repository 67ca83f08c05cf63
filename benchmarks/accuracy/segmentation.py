"""Mean intersection over union and pixel accuracy of semantic segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError
from benchmarks.accuracy.result import AccuracyResult, Arrays, only_output
from benchmarks.statistics.bootstrap import draw_rounds
from calibrators.samples.data import Sample

__all__ = ["SegmentationTask"]

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SegmentationTask:
    """One class per pixel.

    Attributes:
        classes: number of classes.
        output: scores (1, classes, H, W) or classes (1, H, W); None for the only output.
        ignore: label of pixels that do not count.
    """

    classes: int
    output: str | None = None
    ignore: int = 255

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise DataError(
                f"segmentation task has classes: {self.classes}, expected at least 2; set it to "
                "the number of classes of the model"
            )

    def scorer(self) -> _SegmentationScorer:
        """A fresh scorer."""
        return _SegmentationScorer(self)


class _SegmentationScorer:
    """Per sample and class: pixels in both, in the label, in the answer."""

    def __init__(self, task: SegmentationTask) -> None:
        self._task = task
        self._counts: list[Counts] = []

    def add(self, outputs: Arrays, sample: Sample) -> None:
        found = only_output(outputs, self._task.output, "segmentation")[0]
        answer = found.argmax(axis=0) if found.ndim == 3 else np.asarray(found, np.int64)
        label = np.asarray(sample.label)
        if label.shape != answer.shape:
            raise DataError(
                f"sample {sample.name} has a label of shape {list(label.shape)}, expected "
                f"{list(answer.shape)} (height, width) as the model gives; resize the labels"
            )
        counted = label != self._task.ignore
        label, answer = label[counted], answer[counted]
        size = self._task.classes
        both = np.bincount(label[label == answer].astype(np.int64), minlength=size)[:size]
        in_label = np.bincount(label.astype(np.int64), minlength=size)[:size]
        in_answer = np.bincount(answer.astype(np.int64), minlength=size)[:size]
        self._counts.append(np.array([both, in_label, in_answer], np.float64))

    def result(self) -> AccuracyResult:
        counts = np.array(self._counts)
        total = counts.sum(axis=0)
        draws = draw_rounds(len(counts))
        drawn = np.tensordot(draws.astype(np.float64), counts, axes=1)
        return AccuracyResult(
            metric="miou",
            figures={
                "miou": float(_mean_iou(total)),
                "pixel_accuracy": float(total[0].sum() / max(total[1].sum(), 1.0)),
            },
            samples=len(counts),
            resampled=np.asarray(_mean_iou(drawn)),
        )


def _mean_iou(counts: Counts) -> Counts:
    """Mean over classes that occur of both / (label + answer - both), last axes (3, classes)."""
    both, label, answer = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    union = label + answer - both
    occurs = union > 0
    shares = np.where(occurs, both / np.where(occurs, union, 1.0), 0.0)
    return np.asarray(shares.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1))
