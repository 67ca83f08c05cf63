"""Is one system faster than another, and by how much at least?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from artefacts.errors import RequestError
from benchmarks.latency.figures import LatencyResult
from benchmarks.statistics.bootstrap import (
    Interval,
    bootstrap_figures,
    draw_rounds,
    interval_of,
)
from benchmarks.statistics.percentiles import percentile

__all__ = ["MARGIN", "SpeedComparison", "SpeedVerdict", "compare_speed"]

SpeedVerdict = Literal["faster", "slower", "equal", "undecided"]

# Differences below this are not called differences: code layout alone moves a median by as much.
MARGIN = 0.01  # relative difference that is still called equal


@dataclass(frozen=True, kw_only=True)
class SpeedComparison:
    """How many times faster than the baseline, by median latency.

    ``verdict`` reads the interval against a margin of 1 %: wholly above it "faster", wholly below
    "slower", wholly inside "equal", else "undecided" (measure longer). Where latencies have two
    modes the ratio is not ``meaningful`` and the verdict undecided whatever the interval.
    """

    speedup: float
    interval: Interval
    verdict: SpeedVerdict
    meaningful: bool = True


def compare_speed(baseline: LatencyResult, candidate: LatencyResult) -> SpeedComparison:
    """Ratio of median latencies, baseline / candidate, with its interval paired by round.

    Both systems' rounds are drawn together, so what a round did to both cancels in the ratio.

    Args:
        baseline: the system compared with.
        candidate: the system whose speed-up is wanted; from the same ``measure`` call.

    Raises:
        RequestError: the two were not measured in the same rounds.
    """
    rounds = len(baseline.rounds_ms)
    if rounds != len(candidate.rounds_ms):
        raise RequestError(
            f"systems measured in {rounds} and {len(candidate.rounds_ms)} rounds, expected the "
            "same; measure both in one call"
        )
    draws = draw_rounds(rounds)
    medians = [
        bootstrap_figures(result.rounds_ms, (50.0,), draws)[:, 0]
        for result in (baseline, candidate)
    ]
    interval = interval_of(np.asarray(medians[0] / medians[1]))
    meaningful = not (baseline.stability.two_modes or candidate.stability.two_modes)
    return SpeedComparison(
        speedup=percentile(baseline.samples_ms, 50) / percentile(candidate.samples_ms, 50),
        interval=interval,
        verdict=_verdict(interval) if meaningful else "undecided",
        meaningful=meaningful,
    )


def _verdict(interval: Interval) -> SpeedVerdict:
    """Where the interval lies against the margin."""
    if interval.low > 1 + MARGIN:
        return "faster"
    if interval.high < 1 / (1 + MARGIN):
        return "slower"
    if interval.low >= 1 / (1 + MARGIN) and interval.high <= 1 + MARGIN:
        return "equal"
    return "undecided"
