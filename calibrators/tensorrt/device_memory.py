"""Buffers on the GPU that TensorRT's calibrators read, by PyCUDA."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from artefacts.cuda import cuda_context, every_step

__all__ = ["CudaMemory", "DeviceMemory"]


class DeviceMemory(Protocol):
    """Buffers on the device, one per input, kept until closed."""

    def upload(self, name: str, array: NDArray[Any]) -> int:
        """Copy a C-contiguous array to the buffer of an input; its address."""
        ...

    def close(self) -> None:
        """Free all buffers."""
        ...


class CudaMemory:
    """Device memory by PyCUDA in the device's primary context, which TensorRT uses as well.

    Raises:
        MissingLibraryError: PyCUDA is not installed.
        UnsupportedError: there is no usable CUDA device.
    """

    def __init__(self, device: int = 0) -> None:
        self._context = cuda_context(device)
        self._buffers: dict[str, Any] = {}

    def upload(self, name: str, array: NDArray[Any]) -> int:
        """Copy an array to the buffer of an input; its address.

        Raises:
            UnsupportedError: the device has no memory left for it.
        """
        driver = self._context.driver
        what = f"take calibration input {name} of {array.nbytes} bytes"
        with self._context.current(), self._context.checked(what):
            if name not in self._buffers:  # all batches have one shape
                self._buffers[name] = driver.mem_alloc(max(array.nbytes, 1))
            # Synchronous: the host array may go as soon as this returns.
            driver.memcpy_htod(self._buffers[name], array)
            return int(self._buffers[name])

    def close(self) -> None:
        """Free all buffers; a device that failed frees none, and that is no reason to stop."""
        while self._buffers:
            _, buffer = self._buffers.popitem()
            every_step(partial(self._free, buffer))

    def _free(self, buffer: Any) -> None:
        with self._context.current(), self._context.checked("free memory"):
            buffer.free()
