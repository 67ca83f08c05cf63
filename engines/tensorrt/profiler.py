"""TensorRT's profiler interface, implemented: it keeps what an execution context tells it."""

from __future__ import annotations

from typing import Any

__all__ = ["create_profiler"]


def create_profiler(trt: Any) -> Any:
    """An ``IProfiler`` that collects ``(layer, milliseconds)`` in ``.runs``, a list for each run.

    A context that has one enqueues synchronously (``enqueue_emits_profile`` is on by default:
    NVIDIA/TensorRT v10.16, NvInferRuntime.h). Call ``start`` before each execution.
    """

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base exists once the library is loaded
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # pybind11 classes crash without it
            self.runs: list[list[tuple[str, float]]] = []

        def start(self) -> None:
            self.runs.append([])

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.runs[-1].append((layer_name, ms))

    return Profiler()
