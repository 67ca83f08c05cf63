"""Did the machine stay the same during the run? Clocks, throttling, other programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.machine.nvml import Gpu
from benchmarks.machine.proc_files import read_number, read_text

__all__ = ["MachineWatch", "Steadiness"]

Verdict = Literal["steady", "disturbed", "unknown"]
CLOCK_CHANGE = 0.05  # relative, between the slowest and the fastest tenth of the readings
FOREIGN_SHARE = 0.10  # of all CPU time


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """The verdict on the machine.

    Attributes:
        verdict: ``unknown`` where no clock could be read at all.
        reasons: what was seen; each one is a reason not to trust the figures.
        facts: readings for the report.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Times:
    """CPU time of the machine and of this process, in seconds."""

    busy: float
    stolen: float
    total: float
    own: float


@dataclass(kw_only=True)
class MachineWatch:
    """Sampled between rounds; says at the end what changed.

    Attributes:
        root: where ``proc`` and ``sys`` are; tests give a recorded tree.
        gpu: watched too, if there is one.
        interval_s: least time between two samples.
        clock: seconds, monotonic.
    """

    root: Path = Path("/")
    gpu: Gpu | None = None
    interval_s: float = 0.25
    clock: Callable[[], float] = time.monotonic
    _cpu_mhz: list[float] = field(default_factory=list, init=False)
    _gpu_mhz: list[float] = field(default_factory=list, init=False)
    _gpu_c: list[float] = field(default_factory=list, init=False)
    _slowdowns: set[str] = field(default_factory=set, init=False)
    _last_s: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        """Take the readings that the end is compared with."""
        self._start = self._times()
        self._throttled = self._throttle_count()
        self.sample()

    def sample(self, _round: int = 0) -> None:
        """Read clocks and temperatures, if the last sample is old enough."""
        if self.clock() - self._last_s < self.interval_s:
            return
        self._last_s = self.clock()
        if (mhz := self._cpu_clock()) is not None:
            self._cpu_mhz.append(mhz)
        if self.gpu is None:
            return
        for readings, value in (
            (self._gpu_mhz, self.gpu.clock_mhz()),
            (self._gpu_c, self.gpu.temperature_c()),
        ):
            if value is not None:
                readings.append(value)
        self._slowdowns.update(self.gpu.slowdowns() or ())

    def verdict(self) -> Steadiness:
        """What was seen since the start."""
        reasons = [f"the GPU was slowed down by its {name}" for name in sorted(self._slowdowns)]
        reasons += _clock_change("CPU", self._cpu_mhz) + _clock_change("GPU", self._gpu_mhz)
        throttled = self._throttle_count()
        if throttled is not None and self._throttled is not None and throttled > self._throttled:
            reasons.append(
                f"the CPU throttled {throttled - self._throttled:.0f} times because of heat"
            )
        facts = {
            "CPU clock": _range(self._cpu_mhz, "MHz"),
            "GPU clock": _range(self._gpu_mhz, "MHz"),
            "GPU temperature": _range(self._gpu_c, "°C"),
        }
        reasons += self._foreign(facts)
        seen = self._cpu_mhz or self._gpu_mhz or throttled is not None
        verdict: Verdict = "disturbed" if reasons else "steady" if seen else "unknown"
        return Steadiness(verdict=verdict, reasons=tuple(reasons), facts=facts)

    def _foreign(self, facts: dict[str, str]) -> list[str]:
        """What other programs and other virtual machines took of the CPU."""
        end = self._times()
        if end is None or self._start is None or end.total <= self._start.total:
            facts["CPU time of others"] = "unknown"
            return []
        span = end.total - self._start.total
        stolen = (end.stolen - self._start.stolen) / span
        own = (end.own - self._start.own) / span
        others = max((end.busy - self._start.busy) / span - own, 0.0)
        facts["CPU time of others"] = f"{100 * others:.1f} %"
        facts["CPU time stolen by the host"] = f"{100 * stolen:.1f} %"
        reasons = []
        if others > FOREIGN_SHARE:
            reasons.append(f"other programs used {100 * others:.0f} % of the CPU time")
        if stolen > 0.02:
            reasons.append(f"the host gave {100 * stolen:.0f} % of the CPU time to other machines")
        return reasons

    def _times(self) -> _Times | None:
        """From the first line of ``/proc/stat``: user nice system idle iowait irq softirq steal."""
        words = (read_text(self.root / "proc/stat") or "").partition("\n")[0].split()
        if len(words) < 9 or words[0] != "cpu":
            return None
        user, nice, system, idle, iowait, irq, softirq, steal = (
            float(word) / os.sysconf("SC_CLK_TCK") for word in words[1:9]
        )
        own = os.times()
        busy = user + nice + system + irq + softirq
        return _Times(
            busy=busy,
            stolen=steal,
            total=busy + idle + iowait + steal,
            own=own.user + own.system + own.children_user + own.children_system,
        )

    def _cpu_clock(self) -> float | None:
        """Mean clock of the cores, where the kernel tells the real one (cpufreq)."""
        files = (self.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        readings = [value for file in files if (value := read_number(file)) is not None]
        return float(np.mean(readings)) / 1e3 if readings else None

    def _throttle_count(self) -> float | None:
        """How often x86 cores throttled since boot; None where the kernel does not count."""
        files = (self.root / "sys/devices/system/cpu").glob(
            "cpu[0-9]*/thermal_throttle/core_throttle_count"
        )
        counts = [value for file in files if (value := read_number(file)) is not None]
        return sum(counts) if counts else None


def _clock_change(what: str, readings: list[float]) -> list[str]:
    """A reason, if the clock moved; the first readings may still be of an idle chip."""
    settled = readings[len(readings) // 5 :]
    if len(settled) < 5:
        return []
    low, high = np.percentile(settled, [10, 90])
    if high - low <= CLOCK_CHANGE * high:
        return []
    return [f"the {what} clock moved between {low:.0f} and {high:.0f} MHz; lock it"]


def _range(readings: list[float], unit: str) -> str:
    """E.g. ``1980–2100 MHz``."""
    if not readings:
        return "unknown"
    low, high = min(readings), max(readings)
    return f"{low:.0f} {unit}" if low == high else f"{low:.0f}–{high:.0f} {unit}"
