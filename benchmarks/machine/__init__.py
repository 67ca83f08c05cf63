"""The machine a benchmark ran on: what it is, whether it throttled, what it drew.

In: ``/proc``, ``/sys``, NVML, small system commands. Out: facts as text, ``unknown`` where absent.
May import: the standard library, numpy, artefacts; pynvml in one file. Reads only, sets nothing.
"""

from __future__ import annotations

from benchmarks.machine.energy import EnergyResult, measure_energy
from benchmarks.machine.facts import UNKNOWN, capture_environment
from benchmarks.machine.meters import find_meter
from benchmarks.machine.peak_memory import MemoryResult
from benchmarks.machine.steadiness import MachineWatch, Steadiness

__all__ = [
    "UNKNOWN",
    "EnergyResult",
    "MachineWatch",
    "MemoryResult",
    "Steadiness",
    "capture_environment",
    "find_meter",
    "measure_energy",
]
