"""One NVIDIA GPU through NVML: the one file that imports pynvml (package nvidia-ml-py)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from artefacts.errors import MissingLibraryError
from artefacts.libraries import require

__all__ = ["SLOWDOWNS", "Gpu", "open_gpu", "slowdown_names"]

# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean "slower than asked" (nvml.h); idle,
# application clocks and display settings are choices, not throttling.
SLOWDOWNS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "temperature (driver)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}


def slowdown_names(reasons: int) -> tuple[str, ...]:
    """What slows the GPU down, from NVML's bit mask."""
    return tuple(name for bit, name in SLOWDOWNS.items() if reasons & bit)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU handle; each reading is None where this GPU does not tell it (Jetson tells little).

    Attributes:
        library: the pynvml module.
        handle: NVML's device handle.
    """

    library: Any
    handle: Any

    @property
    def name(self) -> str:
        """E.g. ``NVIDIA A10``."""
        return str(self._ask(self.library.nvmlDeviceGetName) or "GPU")

    def power_w(self) -> float | None:
        """Board power."""
        return _scaled(self._ask(self.library.nvmlDeviceGetPowerUsage), 1e-3)

    def power_limit_w(self) -> float | None:
        """The limit that is enforced."""
        return _scaled(self._ask(self.library.nvmlDeviceGetEnforcedPowerLimit), 1e-3)

    def clock_mhz(self) -> float | None:
        """Clock of the streaming multiprocessors now."""
        return _scaled(
            self._ask(self.library.nvmlDeviceGetClockInfo, self.library.NVML_CLOCK_SM), 1.0
        )

    def max_clock_mhz(self) -> float | None:
        """The highest clock of the streaming multiprocessors."""
        return _scaled(
            self._ask(self.library.nvmlDeviceGetMaxClockInfo, self.library.NVML_CLOCK_SM), 1.0
        )

    def temperature_c(self) -> float | None:
        """Of the GPU die."""
        sensor = self.library.NVML_TEMPERATURE_GPU
        return _scaled(self._ask(self.library.nvmlDeviceGetTemperature, sensor), 1.0)

    def memory_used_bytes(self) -> int | None:
        """Of all processes together."""
        info = self._ask(self.library.nvmlDeviceGetMemoryInfo)
        return None if info is None else int(info.used)

    def slowdowns(self) -> tuple[str, ...] | None:
        """What slows the GPU down now."""
        reasons = self._ask(self.library.nvmlDeviceGetCurrentClocksThrottleReasons)
        return None if reasons is None else slowdown_names(int(reasons))

    def driver(self) -> str | None:
        """Version of the driver."""
        try:
            return str(self.library.nvmlSystemGetDriverVersion())
        except self.library.NVMLError:
            return None

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """NVML's answer; None where this GPU or driver has none."""
        try:
            return function(self.handle, *arguments)
        except self.library.NVMLError:
            return None


def open_gpu(index: int = 0) -> Gpu | None:
    """The GPU, or None without one, without its driver or without the library.

    Args:
        index: CUDA's number of the device. NVML counts in another order, and what
            CUDA_VISIBLE_DEVICES hides; so the device is found by its place on the bus.
    """
    try:
        library = require("pynvml", extra="bench")
    except MissingLibraryError:
        return None
    try:
        library.nvmlInit()
        place = _bus_id(index)
        if place is None:
            return None
        return Gpu(library=library, handle=library.nvmlDeviceGetHandleByPciBusId(place))
    except library.NVMLError:
        return None


def _bus_id(index: int) -> bytes | None:
    """Where CUDA's device is, e.g. ``0000:65:00.0``."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, text = ctypes.c_int(), ctypes.create_string_buffer(32)
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), index):
        return None
    if cuda.cuDeviceGetPCIBusId(text, len(text), device):
        return None
    return text.value


def _scaled(value: Any, factor: float) -> float | None:
    """The value in the unit of the function's name."""
    return None if value is None else float(value) * factor
