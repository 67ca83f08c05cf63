"""Latency and throughput of callables, measured side by side.

In: ``{name: callable}``. Out: raw samples by round, figures with intervals, verdicts.
May import: numpy, artefacts, benchmarks.statistics; mlperf_loadgen in one file. The callable's
runtime is unknown here.
"""

from __future__ import annotations

from benchmarks.latency.comparison import SpeedComparison, compare_speed
from benchmarks.latency.figures import Figure, LatencyResult
from benchmarks.latency.overhead import measure_overhead_us
from benchmarks.latency.rounds import TimingRules, measure
from benchmarks.latency.scenarios import ScenarioResult, ScenarioRules, run_scenario
from benchmarks.latency.sweep import SweepPoint, sweep_batches, sweep_threads

__all__ = [
    "Figure",
    "LatencyResult",
    "ScenarioResult",
    "ScenarioRules",
    "SpeedComparison",
    "SweepPoint",
    "TimingRules",
    "compare_speed",
    "measure",
    "measure_overhead_us",
    "run_scenario",
    "sweep_batches",
    "sweep_threads",
]
