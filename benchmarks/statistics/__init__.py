"""Numbers from samples: percentiles, intervals, paired tests, stability.

In: arrays of measured values, grouped by round. Out: figures and intervals.
May import: numpy only; knows nothing of engines, time or files.
"""

from __future__ import annotations

from benchmarks.statistics.binomial import binomial_tail
from benchmarks.statistics.bootstrap import Interval, bootstrap_figures
from benchmarks.statistics.enough import (
    samples_for_difference,
    samples_for_split,
    samples_to_narrow,
)
from benchmarks.statistics.mcnemar import McNemar, mcnemar
from benchmarks.statistics.percentiles import percentile
from benchmarks.statistics.stability import Stability, judge_stability

__all__ = [
    "Interval",
    "McNemar",
    "Stability",
    "binomial_tail",
    "bootstrap_figures",
    "judge_stability",
    "mcnemar",
    "percentile",
    "samples_for_difference",
    "samples_for_split",
    "samples_to_narrow",
]
