"""Time callables side by side, in interleaved rounds.

Each round gives every system a short slice, in an order drawn anew, so that a drifting clock, a
warming chip or a busy neighbour hits all alike. A run ends when every system has the minimum
time *and* samples *and* rounds *and* steady figures; at the time limit it ends "unstable".
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from artefacts.errors import RequestError
from benchmarks.latency.figures import LatencyResult, summarize
from benchmarks.statistics.percentiles import Floats
from benchmarks.statistics.stability import Stability, judge_stability, settled

__all__ = ["TimingRules", "measure"]

Clock = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class TimingRules:
    """When a measurement begins to count and when it is enough; times are per system.

    Attributes:
        warmup_s: least warm-up (trtexec: 0.2 s).
        warmup_limit_s: most warm-up; then the result says that it did not settle.
        min_time_s: least measured time.
        min_samples: fewest latencies.
        min_rounds: fewest rounds; intervals are drawn over them.
        limit_s: most measured time; a system not steady by then is called unstable.
        slice_s: one system's share of a round.
        seed: of the order of systems within the rounds.
    """

    warmup_s: float = 0.2
    warmup_limit_s: float = 5.0
    min_time_s: float = 2.0
    min_samples: int = 100
    min_rounds: int = 30
    limit_s: float = 30.0
    slice_s: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("warmup_s", "warmup_limit_s", "min_time_s", "limit_s", "slice_s"):
            if not getattr(self, name) > 0:
                raise RequestError(
                    f"timing rule {name} is {getattr(self, name)}, expected seconds above 0; "
                    "choose a positive time"
                )
        if self.limit_s < self.min_time_s or self.warmup_limit_s < self.warmup_s:
            raise RequestError(
                f"timing limits {self.limit_s} s and {self.warmup_limit_s} s (warm-up), expected "
                f"at least the minimum times {self.min_time_s} s and {self.warmup_s} s; raise them"
            )
        if self.min_samples < 1 or self.min_rounds < 6:
            raise RequestError(
                f"timing rules ask for {self.min_samples} samples and {self.min_rounds} rounds, "
                "expected at least 1 and 6; raise them"
            )


@dataclass
class _Tally:
    """What one system has so far."""

    rounds_ms: list[Floats] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    warmup_s: float = 0.0
    warmup_settled: bool = False

    def add(self, latencies_ns: list[int], busy_ns: int) -> None:
        self.rounds_ms.append(np.array(latencies_ns, dtype=np.float64) / 1e6)
        self.busy_s.append(busy_ns / 1e9)


def measure(
    systems: Mapping[str, Callable[[], object]],
    *,
    rules: TimingRules | None = None,
    batch: int = 1,
    clock: Clock = time.perf_counter_ns,
    on_round: Callable[[int], object] = lambda number: None,
) -> dict[str, LatencyResult]:
    """Host latency of each callable: from the call to its return, in interleaved rounds.

    Args:
        systems: what to time; one call is one query of ``batch`` images.
        rules: when to start counting and when to stop.
        batch: images per query, for the throughput.
        clock: nanoseconds, monotonic; a test passes a simulated one.
        on_round: called with the number of each finished round (progress, sensors); not timed.

    Raises:
        RequestError: no systems.
    """
    if not systems:
        raise RequestError("0 systems to measure, expected at least 1; name an engine")
    rules = rules or TimingRules()
    tallies = {name: _Tally() for name in systems}
    with _no_collection():
        for name, call in systems.items():
            _warm_up(call, tallies[name], rules, clock)
        verdicts = _run_rounds(systems, tallies, rules, clock, on_round)
    return {
        name: LatencyResult(
            rounds_ms=tuple(tally.rounds_ms),
            busy_s=tuple(tally.busy_s),
            batch=batch,
            warmup_s=tally.warmup_s,
            warmup_settled=tally.warmup_settled,
            figures=summarize(tally.rounds_ms, tally.busy_s, batch),
            stability=verdicts[name],
        )
        for name, tally in tallies.items()
    }


def _run_rounds(
    systems: Mapping[str, Callable[[], object]],
    tallies: Mapping[str, _Tally],
    rules: TimingRules,
    clock: Clock,
    on_round: Callable[[int], object],
) -> dict[str, Stability]:
    """Rounds until all are steady or out of time; the verdict on each."""
    generator = np.random.default_rng(rules.seed)
    names = list(systems)
    number, next_look = 0, rules.min_rounds
    while True:
        for index in generator.permutation(len(names)):
            tallies[names[index]].add(*_slice(systems[names[index]], rules.slice_s, clock))
        number += 1
        on_round(number)
        out_of_time = any(sum(tally.busy_s) >= rules.limit_s for tally in tallies.values())
        if not out_of_time and number < next_look:
            continue
        # Judging costs a bootstrap: look again only after a fifth more rounds.
        next_look = number + max(number // 5, 1)
        verdicts = {name: _judge(tally, rules) for name, tally in tallies.items()}
        if out_of_time or all(verdict.stable for verdict in verdicts.values()):
            return verdicts


def _judge(tally: _Tally, rules: TimingRules) -> Stability:
    """The statistics' verdict, and the least time and samples on top of it."""
    measured_s, samples = sum(tally.busy_s), sum(map(len, tally.rounds_ms))
    short = []
    if measured_s < rules.min_time_s:
        short.append(f"measured for {measured_s:.2f} s, expected {rules.min_time_s:g} s")
    if samples < rules.min_samples:
        short.append(f"{samples} samples, expected {rules.min_samples}")
    verdict = judge_stability(tally.rounds_ms)
    if not short:
        return verdict
    return replace(verdict, stable=False, reasons=(*short, *verdict.reasons))


def _slice(call: Callable[[], object], slice_s: float, clock: Clock) -> tuple[list[int], int]:
    """Query for ``slice_s`` and at least once; latencies and wall time in nanoseconds."""
    latencies: list[int] = []
    begin = end = clock()
    limit = begin + int(slice_s * 1e9)
    while end < limit or not latencies:
        start = clock()
        call()
        end = clock()
        latencies.append(end - start)
    return latencies, end - begin


def _warm_up(call: Callable[[], object], tally: _Tally, rules: TimingRules, clock: Clock) -> None:
    """Query without counting until the last slices agree."""
    medians: list[float] = []
    while tally.warmup_s < rules.warmup_limit_s and not tally.warmup_settled:
        latencies, busy_ns = _slice(call, rules.slice_s, clock)
        medians.append(float(np.median(latencies)))
        tally.warmup_s += busy_ns / 1e9
        tally.warmup_settled = tally.warmup_s >= rules.warmup_s and settled(medians)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out: its pauses are the harness's, not the system's."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
