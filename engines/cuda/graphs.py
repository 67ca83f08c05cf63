"""Work of a stream, recorded once and launched with one call.

By the driver's own functions, since PyCUDA has no graphs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

__all__ = ["Graph", "capture"]

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED in cuda.h: other threads may allocate meanwhile


class Graph:
    """``capture`` makes graphs; use them with the context current."""

    def __init__(self, driver: Any, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        """Own an executable graph."""
        self._driver = driver
        self._executable = executable
        self._stream = stream

    def launch(self) -> bool:
        """Put the work into the stream; whether the driver took it."""
        return not self._driver.cuGraphLaunch(self._executable, self._stream)

    def destroy(self) -> None:
        """Release it."""
        self._driver.cuGraphExecDestroy(self._executable)


def capture(stream: int, enqueue: Callable[[], bool]) -> Graph | None:
    """A graph of what ``enqueue`` puts into a stream; ``None`` where that cannot be.

    Whatever happens, the stream records no longer when this returns.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
    if driver.cuStreamBeginCapture_v2(handle, RELAXED):
        return None
    try:
        enqueued = enqueue()
    except BaseException:
        driver.cuStreamEndCapture(handle, ctypes.byref(graph))
        _destroy(driver, graph)
        raise
    failed = driver.cuStreamEndCapture(handle, ctypes.byref(graph))
    try:
        if failed or not enqueued or not graph.value:
            return None
        executable = ctypes.c_void_p()
        if driver.cuGraphInstantiateWithFlags(
            ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
        ):
            return None
        return Graph(driver, executable, handle)
    finally:
        _destroy(driver, graph)


def _destroy(driver: Any, graph: ctypes.c_void_p) -> None:
    if graph.value:
        driver.cuGraphDestroy(graph)
