"""What an evaluation found, ready for paired comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError, RequestError
from benchmarks.accuracy.agreement import Agreement
from benchmarks.statistics.bootstrap import draw_rounds
from calibrators.samples.data import Sample

__all__ = ["AccuracyResult", "Arrays", "Scorer", "Unit", "mean_result", "only_output"]

Floats = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[np.generic]]
Unit = Literal["share", "number"]


@dataclass(frozen=True, kw_only=True)
class AccuracyResult:
    """One system's accuracy.

    Attributes:
        metric: the headline figure's name, e.g. ``"top1"``; empty where data had no labels.
        figures: every figure by name; shares are in [0, 1].
        samples: how many were evaluated.
        unit: ``share`` in [0, 1], compared in points, or ``number``, compared in percent of it.
        higher_is_better: whether a larger headline is the better one.
        per_sample: what each sample adds to the headline (n,); empty where it is no mean.
        resampled: the headline over bootstrap draws of the samples, the same draws for every
            system (resamples,), so that differences of two systems are paired.
        agreement: likeness to the reference system's outputs; None for the reference itself.
    """

    metric: str
    figures: dict[str, float]
    samples: int
    unit: Unit = "share"
    higher_is_better: bool = True
    per_sample: Floats = field(default_factory=lambda: np.empty(0))
    resampled: Floats = field(default_factory=lambda: np.empty(0))
    agreement: Agreement | None = None

    def __post_init__(self) -> None:
        if self.metric and self.metric not in self.figures:
            raise RequestError(
                f"headline metric {self.metric!r} is not among {sorted(self.figures)}, expected "
                "one of them; name a figure"
            )

    @property
    def value(self) -> float:
        """The headline figure.

        Raises:
            RequestError: there is none: the samples had no labels.
        """
        if not self.metric:
            raise RequestError(
                "accuracy asked of an evaluation without labels, expected labelled samples; give "
                "labels or read the agreement"
            )
        return self.figures[self.metric]


class Scorer(Protocol):
    """Collects one system's answers of one task."""

    def add(self, outputs: Arrays, sample: Sample) -> None:
        """Score one sample; ``outputs`` have a batch axis of one."""
        ...

    def result(self) -> AccuracyResult:
        """What was found; called once, after the last sample."""
        ...


def mean_result(
    metric: str,
    values: Mapping[str, list[float]],
    *,
    unit: Unit = "share",
    higher_is_better: bool = True,
) -> AccuracyResult:
    """The result of a task whose figures are means over samples.

    Args:
        metric: which of ``values`` is the headline.
        values: figure → one value per sample.
        unit: see :class:`AccuracyResult`.
        higher_is_better: see :class:`AccuracyResult`.
    """
    headline = np.array(values[metric])
    return AccuracyResult(
        metric=metric,
        figures={name: float(np.mean(entry)) for name, entry in values.items()},
        samples=headline.size,
        unit=unit,
        higher_is_better=higher_is_better,
        per_sample=headline,
        resampled=draw_rounds(headline.size) @ headline / headline.size,
    )


def only_output(outputs: Arrays, name: str | None, task: str) -> npt.NDArray[np.generic]:
    """The named output, or the only one.

    Args:
        outputs: of a system.
        name: from the task spec; None for the only output.
        task: for errors.

    Raises:
        DataError: no such output, or several and no name.
    """
    if name is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if name is None or name not in outputs:
        raise DataError(
            f"{task} task reads output {name!r}, expected one of {sorted(outputs)}; name it with "
            "'output:' in the task spec"
        )
    return outputs[name]
