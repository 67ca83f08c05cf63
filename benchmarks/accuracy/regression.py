"""Mean absolute and root mean square error of models that estimate numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from artefacts.errors import DataError
from benchmarks.accuracy.result import AccuracyResult, Arrays, mean_result, only_output
from calibrators.samples.data import Sample

__all__ = ["RegressionTask"]


@dataclass(frozen=True, kw_only=True)
class RegressionTask:
    """One or more numbers per sample; the headline is the mean absolute error.

    Attributes:
        output: the output with the numbers; None for the only one.
    """

    output: str | None = None

    def scorer(self) -> _RegressionScorer:
        """A fresh scorer."""
        return _RegressionScorer(self)


class _RegressionScorer:
    def __init__(self, task: RegressionTask) -> None:
        self._task = task
        self._errors: dict[str, list[float]] = {"mae": [], "rmse": []}

    def add(self, outputs: Arrays, sample: Sample) -> None:
        found = np.asarray(only_output(outputs, self._task.output, "regression"), np.float64)
        if sample.label is None or np.size(sample.label) != found.size:
            size = "no label" if sample.label is None else f"{np.size(sample.label)} label values"
            raise DataError(
                f"sample {sample.name} has {size}, expected {found.size} as the model gives; "
                "check labels and model"
            )
        error = found.reshape(-1) - np.asarray(sample.label, np.float64).reshape(-1)
        self._errors["mae"].append(float(np.mean(np.abs(error))))
        self._errors["rmse"].append(float(np.mean(error**2)))

    def result(self) -> AccuracyResult:
        found = mean_result("mae", self._errors, unit="number", higher_is_better=False)
        # Squares are averaged over samples first, then the root is taken.
        return replace(found, figures={**found.figures, "rmse": found.figures["rmse"] ** 0.5})
