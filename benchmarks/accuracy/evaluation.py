"""Run every system over the same samples, one pass, outputs never kept.

Evaluating side by side costs no memory for outputs and makes all comparisons paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError
from benchmarks.accuracy.classification import ClassificationScorer
from calibrators.data import InputSpec, Sample, batches

__all__ = ["AccuracyResult", "System", "evaluate", "evaluate_all"]

Floats = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[np.generic]]
System = Callable[[dict[str, npt.NDArray[np.generic]]], Arrays]


@dataclass(frozen=True, kw_only=True)
class AccuracyResult:
    """One system's accuracy.

    Attributes:
        metric: the headline figure's name, e.g. ``"top1"``.
        figures: every figure by name; shares are in [0, 1].
        per_sample: what each sample adds to the headline (n,), for paired tests; empty where the
            metric is no mean over samples.
        samples: how many were evaluated.
    """

    metric: str
    figures: dict[str, float]
    samples: int
    per_sample: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def value(self) -> float:
        """The headline figure."""
        return self.figures[self.metric]


def evaluate(
    system: System, samples: Iterable[Sample], *, inputs: Sequence[InputSpec], batch_size: int = 1
) -> AccuracyResult:
    """Accuracy of one system; see :func:`evaluate_all`."""
    found = evaluate_all({"system": system}, samples, inputs=inputs, batch_size=batch_size)
    return found["system"]


def evaluate_all(
    systems: Mapping[str, System],
    samples: Iterable[Sample],
    *,
    inputs: Sequence[InputSpec],
    batch_size: int = 1,
) -> dict[str, AccuracyResult]:
    """Accuracy of each system on the same samples.

    Args:
        systems: callables from ``{input: array}`` to ``{output: array}``.
        samples: labelled samples, batch axis 1 each; read once.
        inputs: of the systems; a static batch wins over ``batch_size``.
        batch_size: samples per call.

    Raises:
        DataError: no samples, or a sample without a usable label.
    """
    scorers = {name: ClassificationScorer() for name in systems}
    count = 0
    for batch in batches(samples, batch_size, inputs=inputs):
        count += batch.count
        for name, system in systems.items():
            outputs = next(iter(system(batch.inputs).values()))[: batch.count]
            for sample, scores in zip(batch.samples, outputs, strict=True):
                scorers[name].add(scores, sample.label, sample.name)
    if not count:
        raise DataError("0 samples to evaluate on, expected at least 1; check the data path")
    return {
        name: AccuracyResult(
            metric=scorer.metric,
            figures=scorer.figures(),
            samples=count,
            per_sample=scorer.per_sample(),
        )
        for name, scorer in scorers.items()
    }
