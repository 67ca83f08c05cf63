"""Is the FP32 model a baseline at all: does it know the labels, or is it right by chance?

A drop from chance says nothing about INT8. The usual cause is a label offset (a model whose class 0
is "background"), so offsets are counted on the same outputs; else it is the preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from artefacts.errors import DataError
from benchmarks.accuracy.classification import (
    ClassificationTask,
    class_of,
    class_scores,
    is_among_best,
)
from benchmarks.accuracy.result import Arrays
from benchmarks.accuracy.task import Task
from benchmarks.statistics import binomial_tail
from calibrators import Sample
from pipeline.promise import Promise

__all__ = ["Baseline", "LabelFit"]

SHIFTS = (0, -1, 1, -2, 2)  # of the label offset; of equally good ones the first is named
DOUBT = 0.01  # level of the tests
# Of the way from chance to perfect. Neighbouring classes are alike (ImageNet lists its breeds of
# dogs one after the other), and a network fed with the wrong scale still tells a few apart: with
# labels off by one MobileNetV1 has 1.6 % and V2 1.2 %, fed with 0..255 V2 has 1.2 %, of 1001
# classes. All are more than chance, and none is a baseline.
NEXT_TO_NOTHING = 0.02


@dataclass(frozen=True, kw_only=True)
class LabelFit:
    """Top-1 on the same outputs under several label offsets.

    Attributes:
        classes: of the model, 2 or more.
        samples: how many were judged.
        right: label offset → samples that are right with it, the offset of the task first; only
            offsets with which every label is a class of the model.
    """

    classes: int
    samples: int
    right: dict[int, int]

    @property
    def offset(self) -> int:
        """The one of the task."""
        return next(iter(self.right))

    @property
    def near_chance(self) -> bool:
        """Whether labels and answers have (next to) nothing to do with each other.

        By exact one-sided binomial tests of 1 %, with n samples and C classes. A model that knows
        next to nothing could be right so often by luck: ``P(Binomial(n, p) >= right) > 1 %`` with
        ``p = 1/C + 0.02 (1 - 1/C)``. *And* one halfway between chance and perfect would hardly do
        so badly, ``P(Binomial(n, (1 + 1/C)/2) <= right) <= 1 %``: a few samples accuse nobody.
        """
        return self.weak and self._luck(self.offset) > DOUBT

    @property
    def weak(self) -> bool:
        """Whether one halfway between chance and perfect would hardly do so badly."""
        missed = self.samples - self.right[self.offset]
        return binomial_tail(missed, self.samples, 1 - self._level(0.5)) <= DOUBT

    @property
    def chance(self) -> float:
        """Accuracy of a model that knows next to nothing."""
        return self._level(NEXT_TO_NOTHING)

    @property
    def best(self) -> float:
        """Accuracy under the best of the offsets."""
        return max(self.right.values()) / self.samples

    @property
    def fitting(self) -> int | None:
        """The best of the other offsets, where it is clearly above chance."""
        others = [offset for offset in self.right if offset != self.offset]
        if not others:
            return None
        best = max(others, key=lambda offset: self.right[offset])
        # As many tests as offsets: their doubts add up (Bonferroni).
        return best if self._luck(best) <= DOUBT / len(others) else None

    def accuracy(self, offset: int) -> float:
        """Share of samples that are right."""
        return self.right[offset] / self.samples

    def _level(self, skill: float) -> float:
        """Accuracy of so much skill: 0 is chance, 1 perfect (S of Bennett et al. 1954)."""
        return (1 + skill * (self.classes - 1)) / self.classes

    def _luck(self, offset: int) -> float:
        """How likely a model that knows next to nothing is right so often."""
        return binomial_tail(self.right[offset], self.samples, self.chance)

    def __str__(self) -> str:
        return self.told()

    def told(self, otherwise: str = "") -> str:
        """What was found and what to do.

        Args:
            otherwise: what is known to be better, ``color: bgr gives 85.60 % on 100 of them``.
        """
        if not self.near_chance:
            return (
                f"FP32 has top1 {self.accuracy(self.offset):.2%} on {self.samples} samples, and "
                f"{otherwise}: if the model was trained so, write it into the preprocessing spec"
            )
        found = (
            f"FP32 has top1 {self.accuracy(self.offset):.2%} on {self.samples} samples, expected "
            f"clearly more than {self.chance:.2%} (chance is {self._level(0):.2%} "
            f"for {self.classes} classes); "
        )
        if (offset := self.fitting) is None and otherwise:
            return found + f"{otherwise}; write it into the preprocessing spec"
        if offset is None:
            tried = max(map(abs, SHIFTS))
            return found + (
                f"no label offset within {tried} fits, so the likely cause is the preprocessing "
                "(channel order, scale, mean: --preprocess) or another order of the classes; "
                "correct it"
            )
        shift = offset - self.offset
        return found + (
            f"labels {'plus' if shift > 0 else 'minus'} {abs(shift)} would give "
            f"{self.accuracy(offset):.2%}; write label_offset: {offset} (now {self.offset}) beside "
            "task: classification into the file for --task, or correct the labels"
            + (f"; moreover {otherwise}" if otherwise else "")
        )


class Baseline:
    """Watches the FP32 model's answers while it is evaluated; tasks without classes pass.

    Args:
        task: what the labels mean; None for classification.
    """

    def __init__(self, task: Task | None) -> None:
        self._task = ClassificationTask() if task is None else task
        self._right: dict[int, int] = {}
        if isinstance(self._task, ClassificationTask):
            self._right = {self._task.label_offset + shift: 0 for shift in SHIFTS}
        self._classes = self._samples = 0

    def add(self, outputs: Arrays, sample: Sample) -> None:
        """Count one answer under every offset that gives all labels a class so far."""
        if not isinstance(self._task, ClassificationTask):
            return
        scores = class_scores(outputs, self._task)
        self._classes, self._samples = scores.size, self._samples + 1
        now = self._task.label_offset
        label = class_of(sample, now, scores.size) - now
        self._right = {
            offset: count + is_among_best(scores, label + offset, 1)
            for offset, count in self._right.items()
            if 0 <= label + offset < scores.size
        }

    @property
    def fit(self) -> LabelFit | None:
        """What was counted; None where the task has no classes."""
        if self._classes < 2:
            return None
        return LabelFit(classes=self._classes, samples=self._samples, right=self._right)

    def check(
        self, promise: Promise | None, otherwise: Callable[[LabelFit], str] = lambda fit: ""
    ) -> list[str]:
        """Hold what was counted against chance.

        Args:
            promise: that is judged by it, if any.
            otherwise: what would be better, asked where FP32 knows the labels badly.

        Returns:
            What a person should read; nothing where the baseline is sound.

        Raises:
            DataError: it is near chance, and ``--max-drop`` promises how little is lost of it.
        """
        fit = self.fit
        if fit is None or not fit.weak:
            return []
        better = otherwise(fit)
        if not fit.near_chance:
            return [fit.told(better)] if better else []
        if promise is not None and promise.kind == "drop":
            raise DataError(f"{promise} has a baseline near chance: {fit.told(better)}")
        return [fit.told(better)]
