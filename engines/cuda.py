"""CUDA by PyCUDA: the one file that imports it. Context, stream, buffers, graphs; all counted.

The primary context is the one that torch and CuPy use, so their tensors are valid here. It is
made current around each operation, so any thread may call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import UnsupportedError
from artefacts.libraries import require

__all__ = ["Buffer", "Cuda", "Graph", "live_buffers"]

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED in cuda.h: other threads may allocate meanwhile
_live = 0


def live_buffers() -> int:
    """Device buffers that were allocated and not freed; tests hold it to zero."""
    return _live


class Cuda:
    """A device's primary context and one non-default stream (the default one synchronizes)."""

    def __init__(self, device: int = 0) -> None:
        """Retain the context of a device.

        Raises:
            MissingLibraryError: PyCUDA is not installed.
            UnsupportedError: no such device.
        """
        self._driver = require("pycuda.driver", extra="tensorrt")
        self._driver.init()
        if device >= self._driver.Device.count():
            raise UnsupportedError(
                f"GPU {device} is not there, expected one below {self._driver.Device.count()}; "
                "choose another device"
            )
        self._context = self._driver.Device(device).retain_primary_context()
        self.device = device
        self._users = 1
        with self.current():
            self._stream = self._driver.Stream()

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT and DLPack take it."""
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def buffer(self, size_bytes: int) -> Buffer:
        """Device memory.

        Raises:
            UnsupportedError: the GPU has too little free memory.
        """
        try:
            return Buffer(self._driver.mem_alloc(max(size_bytes, 1)), size_bytes)
        except self._driver.MemoryError as err:
            free, total = self._driver.mem_get_info()
            raise UnsupportedError(
                f"GPU memory has {free >> 20} of {total >> 20} MiB free, expected {size_bytes} "
                "bytes for a tensor; use a smaller batch or fewer engines"
            ) from err

    def pinned(self, size_bytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory, which the GPU can copy while the CPU goes on."""
        array: NDArray[np.uint8] = self._driver.pagelocked_empty(max(size_bytes, 1), np.uint8)
        return array

    def copy_in(self, target: Buffer, source: NDArray[np.uint8]) -> None:
        """Host to device, in the stream; ``source`` is pinned."""
        self._driver.memcpy_htod_async(target.address, source, self._stream)

    def copy_out(self, target: NDArray[np.uint8], source: Buffer) -> None:
        """Device to host, in the stream; ``target`` is pinned."""
        self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def mark(self) -> Any:
        """An event in the stream: when all that was put into it before is done."""
        event = self._driver.Event()
        event.record(self._stream)
        return event

    def between_ms(self, first: Any, second: Any) -> float:
        """Milliseconds from one event to another; both have happened."""
        return float(second.time_since(first))

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], bool]) -> Graph | None:
        """A graph of what ``enqueue`` puts into the stream; ``None`` where that cannot be."""
        driver = ctypes.CDLL("libcuda.so.1")  # PyCUDA has no graphs
        stream, graph = ctypes.c_void_p(self.stream), ctypes.c_void_p()
        if driver.cuStreamBeginCapture_v2(stream, RELAXED):
            return None
        enqueued = enqueue()
        failed = driver.cuStreamEndCapture(stream, ctypes.byref(graph))
        if failed or not enqueued or not graph.value:
            return None
        executable = ctypes.c_void_p()
        failed = driver.cuGraphInstantiateWithFlags(
            ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
        )
        driver.cuGraphDestroy(graph)
        return None if failed else Graph(driver, executable, stream)

    def retain(self) -> None:
        """One more user: memory that outlives the runner needs the context to be freed in."""
        self._users += 1

    def close(self) -> None:
        """The last user gives the context back; it lives on while torch uses it too."""
        self._users -= 1
        if self._users:
            return
        with self.current():
            self._stream.synchronize()
            del self._stream
        self._context.detach()


class Buffer:
    """Device memory with an owner who frees it."""

    def __init__(self, allocation: Any, size_bytes: int) -> None:
        """Count it."""
        global _live
        _live += 1
        self._allocation = allocation
        self.address = int(allocation)
        self.size_bytes = size_bytes

    def free(self) -> None:
        """Free it once; call inside ``Cuda.current``."""
        global _live
        if self._allocation is not None:
            _live -= 1
            self._allocation.free()
            self._allocation = None


class Graph:
    """Work recorded once and launched with one call."""

    def __init__(self, driver: Any, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        """``Cuda.capture`` makes graphs."""
        self._driver = driver
        self._executable = executable
        self._stream = stream

    def launch(self) -> bool:
        """Put the work into the stream; whether the driver took it."""
        return not self._driver.cuGraphLaunch(self._executable, self._stream)

    def destroy(self) -> None:
        """Release it."""
        self._driver.cuGraphExecDestroy(self._executable)
