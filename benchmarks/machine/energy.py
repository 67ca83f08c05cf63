"""Energy per image: power while a system works, minus power while nothing does.

Measured in a pass of its own, after the latencies: reading sensors would disturb those.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.machine.meters import Meter

__all__ = ["EnergyResult", "PowerTrace", "measure_energy"]


@dataclass(frozen=True, kw_only=True)
class PowerTrace:
    """Power over time.

    Attributes:
        times_s: of the readings, from the start of the recording.
        watts: at (or since the reading before) each of these times.
    """

    times_s: tuple[float, ...]
    watts: tuple[float, ...]

    @property
    def mean_w(self) -> float | None:
        """Mean power, each reading weighted by the time since the one before; None for none."""
        starts = (0.0, *self.times_s)[:-1]
        spans = [end - start for start, end in zip(starts, self.times_s, strict=True)]
        if not sum(spans) > 0:
            return None
        return sum(w * s for w, s in zip(self.watts, spans, strict=True)) / sum(spans)


@dataclass(frozen=True, kw_only=True)
class EnergyResult:
    """One system's power and energy.

    Attributes:
        meter: what was read.
        idle_w: mean power before the run, with the engines loaded and nothing running.
        mean_w: mean power while the system ran without a pause.
        per_image_j: ``(mean - idle) * time / images``.
        gross_per_image_j: ``mean * time / images``.
        seconds: of the run.
        images: answered in it.
    """

    meter: str
    idle_w: float
    mean_w: float
    per_image_j: float
    gross_per_image_j: float
    seconds: float
    images: int


def measure_energy(
    systems: Mapping[str, Callable[[], object]],
    meter: Meter,
    *,
    batch: int = 1,
    seconds: float = 5.0,
    interval_s: float = 0.05,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, EnergyResult]:
    """Run each system for a while and read the meter beside it.

    Args:
        systems: one call is one query of ``batch`` images.
        meter: from :func:`benchmarks.machine.find_meter`.
        batch: images per query.
        seconds: of each run, and of the idle time before the first; GPUs average their power
            over about a second, so less than 3 s tells little.
        interval_s: between two readings.
        clock: seconds, monotonic.

    Returns:
        The systems whose power could be read; empty where the meter fell silent.
    """
    # A meter that counts energy needs one reading to start from.
    meter.watts()
    _, _, idle = _record(lambda: time.sleep(interval_s), meter, seconds, interval_s, clock)
    found = {}
    for name, call in systems.items():
        calls, spent_s, trace = _record(call, meter, seconds, interval_s, clock)
        if trace.mean_w is None or idle.mean_w is None:
            continue
        images = calls * batch
        found[name] = EnergyResult(
            meter=meter.name,
            idle_w=idle.mean_w,
            mean_w=trace.mean_w,
            per_image_j=(trace.mean_w - idle.mean_w) * spent_s / images,
            gross_per_image_j=trace.mean_w * spent_s / images,
            seconds=spent_s,
            images=images,
        )
    return found


def _record(
    call: Callable[[], object],
    meter: Meter,
    seconds: float,
    interval_s: float,
    clock: Callable[[], float],
) -> tuple[int, float, PowerTrace]:
    """Call over and over; how often, how long, and the power meanwhile."""
    readings: list[tuple[float, float]] = []
    done = threading.Event()
    start = clock()

    def read() -> None:
        while not done.wait(interval_s):
            watts = meter.watts()
            if watts is not None:
                readings.append((clock() - start, watts))

    reader = threading.Thread(target=read, name="power", daemon=True)
    reader.start()
    calls = 0
    try:
        while clock() - start < seconds or not calls:
            call()
            calls += 1
    finally:
        spent_s = clock() - start
        done.set()
        reader.join()
    trace = PowerTrace(
        times_s=tuple(time_s for time_s, _ in readings),
        watts=tuple(watts for _, watts in readings),
    )
    return calls, spent_s, trace
