"""Which libraries and which GPU this machine has, found without loading a framework."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache

__all__ = ["GpuFacts", "gpu_facts", "has_gpu", "has_module"]

GpuFacts = dict[str, str]
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h


def has_module(name: str) -> bool:
    """Whether a top-level module could be imported (it is not imported)."""
    return importlib.util.find_spec(name) is not None


def has_gpu() -> bool:
    """Whether the CUDA driver is there and shows at least one device."""
    return gpu_facts() is not None


@cache
def gpu_facts(device: int = 0) -> GpuFacts | None:
    """Name, SM and driver of a GPU, asked from the CUDA driver; ``None`` without one.

    ctypes on ``libcuda`` rather than PyCUDA, so that choosing a target needs no extra, and
    rather than nvidia-smi, which a Jetson does not have. ``cuInit`` creates no context.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    handle = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(handle), device):
        return None
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), handle)
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": ".".join(
            str(_attribute(cuda, which, handle))
            for which in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR)
        ),
        # What the installed driver supports, e.g. 12060 -> 12.6.
        "driver_cuda": _version(cuda),
    }


def _attribute(cuda: ctypes.CDLL, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


def _version(cuda: ctypes.CDLL) -> str:
    value = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(value))
    return f"{value.value // 1000}.{value.value % 1000 // 10}"
