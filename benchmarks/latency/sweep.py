"""Throughput against batch size and against the number of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from artefacts.errors import RequestError
from benchmarks.latency.figures import Figure, LatencyResult, summarize
from benchmarks.latency.rounds import TimingRules, measure
from benchmarks.statistics.percentiles import Floats

__all__ = ["SweepPoint", "sweep_batches", "sweep_threads"]

Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One system at one size.

    Attributes:
        system: its name.
        kind: what is varied.
        size: images per query, or threads.
        p50_ms: median latency of a query.
        p99_ms: 99th percentile.
        throughput_per_s: images a second.
        stable: whether the figures may be quoted.
    """

    system: str
    kind: Literal["batch", "threads"]
    size: int
    p50_ms: float
    p99_ms: float
    throughput_per_s: Figure
    stable: bool


def sweep_batches(
    queries: Callable[[int], Calls],
    sizes: Sequence[int],
    *,
    rules: TimingRules,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[SweepPoint, ...]:
    """Each system at each batch size; systems side by side at each.

    Args:
        queries: callables that run one query of so many images.
        sizes: images per query.
        rules: of the timing at each size.
        clock: nanoseconds, monotonic.
    """
    points = []
    for size in sizes:
        found = measure(queries(size), rules=rules, batch=size, clock=clock)
        points += [_batch_point(name, size, result) for name, result in found.items()]
    return tuple(points)


def _batch_point(name: str, size: int, result: LatencyResult) -> SweepPoint:
    return SweepPoint(
        system=name,
        kind="batch",
        size=size,
        p50_ms=result.figures["p50_ms"].value,
        p99_ms=result.figures["p99_ms"].value,
        throughput_per_s=result.figures["throughput_per_s"],
        stable=result.stability.stable,
    )


def sweep_threads(
    callers: Mapping[str, Sequence[Callable[[], object]]],
    counts: Sequence[int],
    *,
    batch: int = 1,
    rounds: int = 10,
    slice_s: float = 0.2,
) -> tuple[SweepPoint, ...]:
    """Each system with so many threads asking at once; systems take turns in every round.

    Args:
        callers: system → one callable per thread, each used by one thread only.
        counts: numbers of threads.
        batch: images per query.
        rounds: turns of each system.
        slice_s: length of a turn.

    Raises:
        RequestError: fewer callers than threads.
    """
    points = []
    for count in counts:
        latencies: dict[str, list[Floats]] = {name: [] for name in callers}
        busy_s: dict[str, list[float]] = {name: [] for name in callers}
        for _ in range(rounds):
            for name, calls in callers.items():
                if len(calls) < count:
                    raise RequestError(
                        f"{len(calls)} callers of {name} for {count} threads, expected one each; "
                        "clone the engine"
                    )
                samples, spent_s = _ask_at_once(calls[:count], slice_s)
                latencies[name].append(samples)
                busy_s[name].append(spent_s)
        points += [
            _thread_point(name, count, latencies[name], busy_s[name], batch) for name in callers
        ]
    return tuple(points)


def _ask_at_once(calls: Sequence[Callable[[], object]], slice_s: float) -> tuple[Floats, float]:
    """All callers in threads of their own for a while; latencies in ms and the wall time."""
    gate = threading.Barrier(len(calls) + 1)

    def ask(call: Callable[[], object]) -> list[int]:
        latencies = []
        gate.wait()
        end = time.perf_counter_ns()
        limit = end + int(slice_s * 1e9)
        while end < limit:
            start = time.perf_counter_ns()
            call()
            end = time.perf_counter_ns()
            latencies.append(end - start)
        return latencies

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = [pool.submit(ask, call) for call in calls]
        gate.wait()
        begin = time.perf_counter()
        found = [np.array(answer.result(), np.float64) for answer in answers]
        spent_s = time.perf_counter() - begin
    return np.concatenate(found) / 1e6, spent_s


def _thread_point(
    name: str, count: int, rounds_ms: list[Floats], busy_s: list[float], batch: int
) -> SweepPoint:
    figures = summarize(rounds_ms, busy_s, batch)
    throughput = figures["throughput_per_s"]
    spread = 0.0
    if throughput.interval is not None:
        spread = (throughput.interval.high - throughput.interval.low) / 2 / throughput.value
    return SweepPoint(
        system=name,
        kind="threads",
        size=count,
        p50_ms=figures["p50_ms"].value,
        p99_ms=figures["p99_ms"].value,
        throughput_per_s=throughput,
        stable=spread <= 0.05,
    )
