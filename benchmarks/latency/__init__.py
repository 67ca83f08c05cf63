"""Latency and throughput of callables, measured side by side.

In: ``{name: callable}``. Out: raw samples by round, figures with intervals, verdicts.
May import: numpy, benchmarks.statistics; the callable's runtime is unknown here.
"""

from __future__ import annotations

from benchmarks.latency.comparison import SpeedComparison, compare_speed
from benchmarks.latency.figures import Figure, LatencyResult
from benchmarks.latency.rounds import TimingRules, measure

__all__ = [
    "Figure",
    "LatencyResult",
    "SpeedComparison",
    "TimingRules",
    "compare_speed",
    "measure",
]
