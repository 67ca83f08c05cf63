"""Systems with known latency distributions, on a clock that only they advance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class FakeClock:
    """Nanoseconds that pass only when a simulated system works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def steady(
    clock: FakeClock, rng: np.random.Generator, mean_ms: float, spread: float = 0.05
) -> Callable[[], None]:
    """Gamma-distributed latency: skewed, as real ones are."""
    shape = 1 / spread**2

    def call() -> None:
        clock.now_ns += int(rng.gamma(shape, mean_ms / shape) * 1e6)

    return call


def drifting(
    clock: FakeClock, rng: np.random.Generator, mean_ms: float, per_s: float
) -> Callable[[], None]:
    """Gets slower by the share ``per_s`` each second of simulated time."""
    base = steady(clock, rng, mean_ms)

    def call() -> None:
        start = clock.now_ns
        base()
        clock.now_ns = start + int((clock.now_ns - start) * (1 + per_s * start / 1e9))

    return call


def bimodal(
    clock: FakeClock,
    rng: np.random.Generator,
    fast_ms: float,
    slow_ms: float,
    slow_share: float = 0.5,
) -> Callable[[], None]:
    """A share of the queries takes the slow path."""
    modes = [steady(clock, rng, fast_ms, 0.01), steady(clock, rng, slow_ms, 0.01)]
    return lambda: modes[int(rng.random() < slow_share)]()


def stalling(
    clock: FakeClock, rng: np.random.Generator, mean_ms: float, stall_ms: float, chance: float
) -> Callable[[], None]:
    """Now and then a query waits ``stall_ms`` longer."""
    base = steady(clock, rng, mean_ms)

    def call() -> None:
        base()
        if rng.random() < chance:
            clock.now_ns += int(stall_ms * 1e6)

    return call
