"""What one system's samples say: each figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artefacts.errors import RequestError
from benchmarks.statistics.bootstrap import (
    Interval,
    bootstrap_figures,
    draw_rounds,
    interval_of,
)
from benchmarks.statistics.percentiles import Floats, percentile
from benchmarks.statistics.stability import Stability

__all__ = ["PERCENTS", "Figure", "LatencyResult", "summarize", "summarize_values"]

PERCENTS = (50.0, 90.0, 95.0, 99.0)
_NEIGHBOURS = 20  # values in the order of time that are drawn together


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number and where it lies; no interval for a maximum, which no resampling bounds."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """One system, measured.

    Attributes:
        rounds_ms: host latency of each query, one array per round, nothing clipped.
        busy_s: wall time of each round's slice, from its first query to its last answer.
        batch: images per query.
        warmup_s: time spent warming up.
        warmup_settled: whether the last warm-up slices agreed.
        figures: ``p50_ms p90_ms p95_ms p99_ms mean_ms min_ms max_ms throughput_per_s``.
        stability: whether the figures may be quoted.
    """

    rounds_ms: tuple[Floats, ...]
    busy_s: tuple[float, ...]
    batch: int
    warmup_s: float
    warmup_settled: bool
    figures: dict[str, Figure]
    stability: Stability

    def __post_init__(self) -> None:
        if len(self.rounds_ms) != len(self.busy_s):
            raise RequestError(
                f"{len(self.rounds_ms)} rounds with {len(self.busy_s)} wall times, expected one "
                "each; build the result with benchmarks.latency.measure"
            )

    @property
    def samples_ms(self) -> Floats:
        """All latencies in the order of time (n,)."""
        return np.concatenate(self.rounds_ms)


def summarize(
    rounds_ms: Sequence[Floats], busy_s: Sequence[float], batch: int
) -> dict[str, Figure]:
    """Figures with 95 % bootstrap intervals, drawn by round.

    Throughput is images / wall time of the slices, trtexec's definition (queries / walltime)
    times the batch; it includes what the harness itself costs between queries.

    Args:
        rounds_ms: latencies in milliseconds, one array per round.
        busy_s: wall time of each round's slice.
        batch: images per query.
    """
    samples = np.concatenate(list(rounds_ms))
    draws = draw_rounds(len(rounds_ms))
    resampled = bootstrap_figures(rounds_ms, PERCENTS, draws)
    figures = {
        f"p{percent:g}_ms": Figure(
            value=percentile(samples, percent), interval=interval_of(resampled[:, column])
        )
        for column, percent in enumerate(PERCENTS)
    }
    sizes = np.array([len(group) for group in rounds_ms], dtype=np.float64)
    totals = np.array([np.sum(group) for group in rounds_ms])
    figures["mean_ms"] = _quotient(totals, sizes, draws)
    figures["min_ms"] = Figure(value=float(samples.min()))
    figures["max_ms"] = Figure(value=float(samples.max()))
    figures["throughput_per_s"] = _quotient(batch * sizes, np.asarray(busy_s), draws)
    return figures


def summarize_values(values: Sequence[float]) -> Figure:
    """Median of values in the order of time, its interval drawn over runs of 20.

    Args:
        values: at least one.
    """
    samples = np.asarray(values, dtype=np.float64)
    groups = np.array_split(samples, max(len(samples) // _NEIGHBOURS, 1))
    resampled = bootstrap_figures(groups, (50.0,), draw_rounds(len(groups)))
    return Figure(value=percentile(samples, 50), interval=interval_of(resampled[:, 0]))


def _quotient(above: Floats, below: Floats, draws: npt.NDArray[np.int64]) -> Figure:
    """sum(above) / sum(below) over rounds, with its interval."""
    resampled = (draws @ above) / (draws @ below)
    return Figure(value=float(above.sum() / below.sum()), interval=interval_of(resampled))
