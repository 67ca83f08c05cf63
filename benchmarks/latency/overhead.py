"""What the harness itself costs: a system under test that does nothing."""

from __future__ import annotations

from benchmarks.latency.rounds import TimingRules, measure

__all__ = ["measure_overhead_us"]

RULES = TimingRules(
    warmup_s=0.01,
    warmup_limit_s=0.05,
    min_time_s=0.02,
    min_rounds=10,
    limit_s=0.05,
    slice_s=0.002,
)


def measure_overhead_us() -> float:
    """Median latency of an empty call, in microseconds.

    It is part of every latency that :func:`benchmarks.latency.measure` reports; the report states
    it and subtracts nothing.
    """
    return measure({"null": lambda: None}, rules=RULES)["null"].figures["p50_ms"].value * 1e3
