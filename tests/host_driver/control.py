"""The driver of host memory, as a test sees it: counts, faults, a fresh start. See driver.h."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

__all__ = [
    "ILLEGAL_ADDRESS",
    "LAUNCH_FAILED",
    "NO_DEVICE",
    "OUT_OF_MEMORY",
    "Counts",
    "HostDriver",
]

# CUresult in cuda.h
OUT_OF_MEMORY, NO_DEVICE, ILLEGAL_ADDRESS, LAUNCH_FAILED = 2, 100, 700, 719


class Counts(NamedTuple):
    """What is alive, and what was done wrong; in the order of host_driver_counts in control.c."""

    device_memory: int
    pinned_memory: int
    streams: int
    events: int
    graphs: int
    executables: int
    launches: int
    pushed: int
    misuses: int
    references_0: int
    references_1: int
    used_bytes: int


class HostDriver:
    """``libcuda.so.1`` of this process, which must be ours."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._library.host_driver_complaint.restype = ctypes.c_char_p
        self._library.host_driver_limit.argtypes = (ctypes.c_size_t,)
        self._library.host_driver_double.argtypes = (ctypes.c_void_p,) * 4 + (ctypes.c_size_t,)

    def counts(self) -> Counts:
        found = (ctypes.c_long * len(Counts._fields))()
        self._library.host_driver_counts(found)
        return Counts(*found)

    def fail(self, function: str, error: int, *, call: int = 1, times: int = 1) -> None:
        """The n-th call from now of a function of the driver fails, and so many in all."""
        self._library.host_driver_fail(function.encode(), call, times, error)

    def limit(self, size_bytes: int) -> None:
        """How much device memory there is."""
        self._library.host_driver_limit(size_bytes)

    def double(self, stream: int, output: int, given: int, scratch: int, size_bytes: int) -> int:
        """Put the one kernel there is into a stream: output = 2 · given; CUDA's answer."""
        return int(self._library.host_driver_double(stream, output, given, scratch, size_bytes))

    def complaint(self) -> str:
        """What was misused first."""
        return str(self._library.host_driver_complaint().decode())

    def initialized(self) -> bool:
        """Whether anybody called cuInit."""
        return bool(self._library.host_driver_initialized())

    def reset(self) -> None:
        self._library.host_driver_reset()
