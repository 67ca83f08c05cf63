"""Power meters: NVIDIA GPUs by NVML, Jetson rails by sysfs, CPUs by RAPL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.machine.nvml import Gpu, open_gpu
from benchmarks.machine.proc_files import read_number, read_text
from benchmarks.machine.rails import RailMeter, find_rails, open_jtop

__all__ = ["Meter", "NvmlMeter", "RaplMeter", "find_meter", "find_zones"]


class Meter(Protocol):
    """Something that tells watts."""

    @property
    def name(self) -> str:
        """What is read, for the report."""
        ...

    def watts(self) -> float | None:
        """Power now, or since the last call; None where it cannot be read now."""
        ...


@dataclass(frozen=True, kw_only=True)
class NvmlMeter:
    """Board power of a discrete GPU; most of them average it over the last second."""

    gpu: Gpu

    @property
    def name(self) -> str:
        """What is read, for the report."""
        return f"NVML board power of {self.gpu.name}"

    def watts(self) -> float | None:
        """Power now."""
        return self.gpu.power_w()


@dataclass(frozen=True, kw_only=True)
class Zone:
    """One RAPL package: its counter and where the counter wraps, in microjoules."""

    name: str
    counter: Path
    wraps_at: float


@dataclass(kw_only=True)
class RaplMeter:
    """Energy counters of the CPU packages; mean power between two calls.

    Attributes:
        zones: what is added up.
        clock: seconds; a test passes a simulated one.
    """

    zones: tuple[Zone, ...]
    clock: Callable[[], float] = time.monotonic
    _last: tuple[float, list[float]] | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """What is read, for the report."""
        return f"RAPL {' + '.join(zone.name for zone in self.zones)}"

    def watts(self) -> float | None:
        """Mean power since the last call; None at the first."""
        counters = [read_number(zone.counter) for zone in self.zones]
        if any(counter is None for counter in counters):
            return None
        now = (self.clock(), [float(counter or 0) for counter in counters])
        before, self._last = self._last, now
        if before is None or now[0] <= before[0]:
            return None
        spent_uj = sum(
            (new - old) % zone.wraps_at
            for zone, old, new in zip(self.zones, before[1], now[1], strict=True)
        )
        return spent_uj / 1e6 / (now[0] - before[0])


def find_zones(root: Path = Path("/")) -> tuple[Zone, ...]:
    """RAPL packages whose counter this user may read (Linux allows root only since 5.10).

    Sub-zones (core, uncore, dram) lie in ``intel-rapl:0:1`` and are part of or beside the
    package; only packages are added up. AMD's have the same names.

    Args:
        root: where ``sys`` is; tests give a recorded tree.
    """
    zones = []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = read_text(folder / "name") or ""
        wraps_at = read_number(folder / "max_energy_range_uj")
        counter = folder / "energy_uj"
        if name.startswith("package") and wraps_at and read_number(counter) is not None:
            # The counter takes the value of its range before it wraps to 0.
            zones.append(Zone(name=name, counter=counter, wraps_at=wraps_at + 1))
    return tuple(zones)


def find_meter(root: Path = Path("/")) -> Meter | None:
    """The meter nearest to where inference runs: Jetson rails, GPU board, CPU packages; or none.

    Args:
        root: where ``sys`` is; tests give a recorded tree.
    """
    if rails := find_rails(root):
        return RailMeter(rails=rails)
    if (jtop := open_jtop(root)) is not None:
        return jtop
    if (gpu := open_gpu()) is not None and gpu.power_w() is not None:
        return NvmlMeter(gpu=gpu)
    if zones := find_zones(root):
        return RaplMeter(zones=zones)
    return None
