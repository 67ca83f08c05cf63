"""Bootstrap intervals of figures, by round.

Latencies within one round are not independent (clocks, caches and neighbours drift), so whole
rounds are drawn, not single latencies: the cluster bootstrap (Davison and Hinkley, *Bootstrap
Methods and their Application*, 1997, section 3.8). A ratio of two systems draws the same rounds
for both, since they were measured side by side in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artefacts.errors import RequestError
from benchmarks.statistics.percentiles import Floats, weighted_percentiles

__all__ = [
    "CONFIDENCE",
    "Interval",
    "bootstrap_figures",
    "draw_rounds",
    "interval_of",
]

CONFIDENCE = 0.95
RESAMPLES = 1000
BINS = 2048


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a figure lies with the given confidence."""

    low: float
    high: float
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise RequestError(
                f"interval from {self.low} to {self.high}, expected low <= high; swap the ends"
            )


def draw_rounds(rounds: int, resamples: int = RESAMPLES, seed: int = 0) -> npt.NDArray[np.int64]:
    """How often each round is drawn in each resample: (resamples, rounds), rows sum to rounds.

    Args:
        rounds: number of rounds measured.
        resamples: number of bootstrap resamples.
        seed: fixed, so that one report always gives the same intervals.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(rounds, np.full(rounds, 1 / rounds), size=resamples)


def bootstrap_figures(
    groups: Sequence[Floats], percents: tuple[float, ...], draws: npt.NDArray[np.int64]
) -> Floats:
    """Percentiles of each resample: (resamples, len(percents)).

    Args:
        groups: one array of values per round.
        percents: percentiles wanted.
        draws: from :func:`draw_rounds`, for ``len(groups)`` rounds.

    Raises:
        RequestError: the draws are for another number of rounds.
    """
    if draws.shape[1] != len(groups):
        raise RequestError(
            f"draws for {draws.shape[1]} rounds, expected {len(groups)}; draw for these groups"
        )
    values, counts = _counted(groups)
    return weighted_percentiles(values, draws @ counts, percents)


def _counted(groups: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Distinct values (n,), ascending, and how often each round has them: (rounds, n).

    Beyond ``BINS`` samples neighbours are counted as the largest of them, which moves a
    percentile by at most 1/BINS of the ranks; below that it is exact.
    """
    pooled = np.sort(np.concatenate(groups))
    steps = np.linspace(0, pooled.size - 1, min(pooled.size, BINS)).astype(np.int64)
    values = np.unique(pooled[steps])
    counts = [
        np.bincount(np.searchsorted(values, group), minlength=values.size) for group in groups
    ]
    # As floats: exact up to 2^53, and numpy multiplies matrices of integers without BLAS.
    return values, np.array(counts, dtype=np.float64)


def interval_of(resampled: Floats, confidence: float = CONFIDENCE) -> Interval:
    """The central interval that holds ``confidence`` of the resampled values."""
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high), confidence=confidence)
