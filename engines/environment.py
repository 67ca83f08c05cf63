"""Which libraries and which GPU this machine has, found without loading a framework."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from functools import cache

from artefacts.errors import UnsupportedError

__all__ = ["GpuFacts", "gpu_facts", "has_gpu", "has_module"]

GpuFacts = dict[str, str]
# CUdevice_attribute in cuda.h
MULTIPROCESSORS, COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 16, 75, 76
NOT_INITIALIZED = 3  # CUresult; what cuInit returns in a fork
COUNT_DEVICES = """
import ctypes
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
if not cuda.cuInit(0) and not cuda.cuDeviceGetCount(ctypes.byref(count)):
    print(count.value)
"""


def has_module(name: str) -> bool:
    """Whether a top-level module could be imported (it is not imported)."""
    return importlib.util.find_spec(name) is not None


@cache
def has_gpu() -> bool:
    """Whether the CUDA driver is there and shows at least one device.

    Another process asks the driver: a process that initialised CUDA cannot use it in its forks, and
    to ask is no reason for that.
    """
    command = [sys.executable, "-I", "-S", "-c", COUNT_DEVICES]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)
    return done.stdout.strip() not in ("", "0")


@cache
def gpu_facts(device: int = 0) -> GpuFacts | None:
    """Name, SM, their number and driver of a GPU, asked from the CUDA driver; ``None`` without one.

    ctypes on ``libcuda`` rather than PyCUDA, so that choosing a target needs no extra, and
    rather than nvidia-smi, which a Jetson does not have. It initialises CUDA in this process.

    Raises:
        UnsupportedError: this process is a fork of one that uses CUDA.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    handle = ctypes.c_int()
    failed = cuda.cuInit(0)
    if failed == NOT_INITIALIZED:
        raise UnsupportedError(
            "CUDA cannot be initialised in this process, expected one that is no fork of a process "
            "that uses CUDA; start processes with multiprocessing's 'spawn'"
        )
    if failed or cuda.cuDeviceGet(ctypes.byref(handle), device):
        return None
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), handle)
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": ".".join(
            str(_attribute(cuda, which, handle))
            for which in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR)
        ),
        # An Orin Nano and an AGX Orin share name and SM.
        "multiprocessors": str(_attribute(cuda, MULTIPROCESSORS, handle)),
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
