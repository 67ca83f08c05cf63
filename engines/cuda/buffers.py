"""Pinned and device memory of a runner, one pair for each tensor, kept between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda.driver import Cuda
from engines.cuda.memory import DeviceBuffer

__all__ = ["Buffers"]


class Buffers:
    """Grow only: a service that has seen its largest batch allocates nothing more."""

    def __init__(self, cuda: Cuda, before_move: Callable[[], None]) -> None:
        """Start empty.

        Args:
            cuda: where they are.
            before_move: called while a tensor's old memory is still there, before its address
                changes: who has baked it in must let go of it first.
        """
        self._cuda = cuda
        self._before_move = before_move
        self._device: dict[str, DeviceBuffer] = {}
        self._pinned: dict[str, NDArray[np.uint8]] = {}

    def reserve(self, name: str, size_bytes: int) -> None:
        """Have at least so many bytes for a tensor.

        The old memory goes first, so that growing needs no room for both; after an error the
        tensor has none and the next call starts again.
        """
        held = self._device.get(name)
        if held is not None and held.size_bytes >= size_bytes:
            return
        if held is not None:
            self._cuda.synchronize()
            self._before_move()
            del self._device[name], held
            self._pinned.pop(name, None)
        self._device[name] = self._cuda.buffer(size_bytes)

    def __getitem__(self, name: str) -> DeviceBuffer:
        return self._device[name]

    def copy_in(self, name: str, array: NDArray[Any]) -> None:
        """An array through pinned memory into the device, in the stream."""
        self.stage(name, array)
        self.send(name, array.nbytes)

    def stage(self, name: str, array: NDArray[Any]) -> None:
        """An array into pinned memory; the device sees nothing of it yet."""
        self._host(name)[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def send(self, name: str, size_bytes: int) -> None:
        """Pinned memory into the device, in the stream."""
        self._cuda.copy_in(self._device[name], self._host(name)[:size_bytes])

    def copy_within(self, name: str, address: int, size_bytes: int) -> None:
        """Other memory of the device into a tensor's own, in the stream."""
        self._cuda.copy_within(self._device[name], address, size_bytes)

    def copy_out(self, name: str, size_bytes: int) -> None:
        """Device into pinned memory, in the stream."""
        self._cuda.copy_out(self._host(name)[:size_bytes], self._device[name])

    def view(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The pinned memory as an array, which keeps it."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self._host(name)[:size].view(dtype).reshape(shape)

    def hand_over(self, name: str) -> DeviceBuffer:
        """Give device memory away; the next ``reserve`` allocates anew."""
        self._before_move()
        return self._device.pop(name)

    def free(self) -> None:
        """Let go of everything; what is lent lives on."""
        self._device.clear()
        self._pinned.clear()

    def _host(self, name: str) -> NDArray[np.uint8]:
        needed = self._device[name].size_bytes
        held = self._pinned.get(name)
        if held is None or len(held) < needed:
            held = self._pinned[name] = self._cuda.pinned(needed).array()
        return held
