"""A GPU whose memory is the host's: PyCUDA does not install where there is no CUDA toolkit.

Same interface as ``engines.cuda``. Copies happen when they are asked for and a graph runs what it
recorded, so a runner's bookkeeping (addresses, sizes, order, release) is exercised for real.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import UnsupportedError

__all__ = ["HostBuffer", "HostCuda", "HostGraph", "at_address", "doubling"]


def at_address(address: int, shape: tuple[int, ...], dtype: str = "float32") -> NDArray[np.float32]:
    """The array that lies at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


class HostBuffer:
    """Memory with an address, counted."""

    def __init__(self, size_bytes: int) -> None:
        HostCuda.live += 1
        self._array: NDArray[np.uint8] | None = np.zeros(max(size_bytes, 1), np.uint8)
        self.address = self._array.ctypes.data
        self.size_bytes = size_bytes

    def free(self) -> None:
        if self._array is not None:
            HostCuda.live -= 1
            self._array = None


class HostGraph:
    """What was captured, run again at each launch; counted."""

    def __init__(self, enqueue: Callable[[], bool]) -> None:
        HostCuda.graphs += 1
        self._enqueue = enqueue

    def launch(self) -> bool:
        HostCuda.launches += 1
        return self._enqueue()

    def destroy(self) -> None:
        HostCuda.graphs -= 1


class HostCuda:
    """Counts what lives, and can be told to fail."""

    live = graphs = launches = contexts = 0
    limit_bytes = 1 << 40
    can_capture = True

    def __init__(self, device: int = 0) -> None:
        HostCuda.contexts += 1
        self.device = device
        self.depth = 0
        self._users = 1

    @property
    def stream(self) -> int:
        return 42

    @contextmanager
    def current(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def buffer(self, size_bytes: int) -> HostBuffer:
        assert self.depth, "allocates without the context"
        if size_bytes > HostCuda.limit_bytes:
            raise UnsupportedError(f"GPU memory has too little free for {size_bytes} bytes")
        return HostBuffer(size_bytes)

    def pinned(self, size_bytes: int) -> NDArray[np.uint8]:
        return np.zeros(max(size_bytes, 1), np.uint8)

    def copy_in(self, target: HostBuffer, source: NDArray[np.uint8]) -> None:
        assert source.nbytes <= target.size_bytes
        ctypes.memmove(target.address, source.ctypes.data, source.nbytes)

    def copy_out(self, target: NDArray[np.uint8], source: HostBuffer) -> None:
        assert target.nbytes <= source.size_bytes
        ctypes.memmove(target.ctypes.data, source.address, target.nbytes)

    def mark(self) -> float:
        assert self.depth, "marks without the context"
        return time.perf_counter() * 1e3

    def between_ms(self, first: float, second: float) -> float:
        assert self.depth, "asks events without the context"
        return second - first

    def synchronize(self) -> None:
        assert self.depth, "synchronizes without the context"

    def capture(self, enqueue: Callable[[], bool]) -> HostGraph | None:
        return HostGraph(enqueue) if HostCuda.can_capture else None

    def retain(self) -> None:
        self._users += 1

    def close(self) -> None:
        self._users -= 1
        assert self._users >= 0, "closed twice"
        HostCuda.contexts -= not self._users


def doubling() -> dict[str, Any]:
    """Answers of an execution context (see surface.py) whose plan has output = 2 · input."""

    def execute(context: Any, stream: int) -> bool:
        shape = context.values["shape"]
        at_address(context.values["output"], shape)[:] = 2 * at_address(
            context.values["input"], shape
        )
        return True

    def set_shape(context: Any, name: str, shape: tuple[int, ...]) -> bool:
        context.values["shape"] = tuple(shape)
        return True

    def set_address(context: Any, name: str, address: int) -> bool:
        context.values[name] = address
        return True

    return {
        "IExecutionContext.execute_async_v3": execute,
        "IExecutionContext.set_input_shape": set_shape,
        "IExecutionContext.set_tensor_address": set_address,
        "IExecutionContext.get_tensor_shape": lambda context, name: context.values["shape"],
        "IExecutionContext.active_optimization_profile": -1,
    }
