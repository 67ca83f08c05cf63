"""Is the accuracy drop real? Paired: both systems answered the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from artefacts.errors import RequestError
from benchmarks.accuracy.result import AccuracyResult
from benchmarks.statistics.bootstrap import Interval, interval_of
from benchmarks.statistics.mcnemar import McNemar, mcnemar

__all__ = ["AccuracyComparison", "compare_accuracy"]

DropVerdict = Literal["worse", "better", "no difference shown"]


@dataclass(frozen=True, kw_only=True)
class AccuracyComparison:
    """How much accuracy the candidate loses against the baseline; negative where it gains.

    Attributes:
        metric: the headline compared.
        drop: in points for a share (98.0 % → 97.5 % is 0.5), in percent of the baseline's figure
            for any other metric.
        unit: ``points`` or ``percent``.
        interval: 95 % paired bootstrap interval of the drop.
        mcnemar: exact test, where each sample is right or wrong.
        verdict: by the interval; a drop that the interval does not part from 0 is not shown.
    """

    metric: str
    drop: float
    unit: Literal["points", "percent"]
    interval: Interval
    mcnemar: McNemar | None
    verdict: DropVerdict


def compare_accuracy(baseline: AccuracyResult, candidate: AccuracyResult) -> AccuracyComparison:
    """The candidate's drop with its interval, and McNemar's test where it applies.

    Raises:
        RequestError: the two were not evaluated on the same samples with the same metric.
    """
    if (baseline.metric, baseline.samples) != (candidate.metric, candidate.samples):
        raise RequestError(
            f"accuracies {baseline.metric!r} of {baseline.samples} and {candidate.metric!r} of "
            f"{candidate.samples} samples, expected the same; evaluate both in one call"
        )
    sign = 1.0 if baseline.higher_is_better else -1.0
    # A baseline of exactly 0 has no percentage; its plain difference is shown instead.
    scale = 100.0 if baseline.unit == "share" else 100.0 / (abs(baseline.value) or 1.0)
    interval = interval_of(np.asarray(sign * scale * (baseline.resampled - candidate.resampled)))
    return AccuracyComparison(
        metric=baseline.metric,
        drop=sign * scale * (baseline.value - candidate.value),
        unit="points" if baseline.unit == "share" else "percent",
        interval=interval,
        mcnemar=_mcnemar(baseline, candidate),
        verdict=_verdict(interval),
    )


def _mcnemar(baseline: AccuracyResult, candidate: AccuracyResult) -> McNemar | None:
    """The exact test, if every sample is right (1) or wrong (0)."""
    values = np.concatenate([baseline.per_sample, candidate.per_sample])
    if not values.size or not np.all((values == 0) | (values == 1)):
        return None
    return mcnemar(baseline.per_sample, candidate.per_sample)


def _verdict(interval: Interval) -> DropVerdict:
    """Which side of zero the interval lies on."""
    if interval.low > 0:
        return "worse"
    return "better" if interval.high < 0 else "no difference shown"
