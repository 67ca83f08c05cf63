"""Pinned and device memory of a runner, one pair for each tensor, kept between calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda import Buffer, Cuda

__all__ = ["Buffers", "HandedOver"]


@dataclass(frozen=True)
class HandedOver:
    """Device memory with a new owner, who calls ``free`` once."""

    address: int
    free: Callable[[], None]


class Buffers:
    """Grow only: a service that has seen its largest batch allocates nothing more."""

    def __init__(self, cuda: Cuda) -> None:
        """Start empty."""
        self._cuda = cuda
        self._device: dict[str, Buffer] = {}
        self._pinned: dict[str, NDArray[np.uint8]] = {}

    def reserve(self, name: str, size_bytes: int) -> bool:
        """Have at least so many bytes for a tensor; whether its address changed.

        The old memory goes first, so that growing needs no room for both; after an error the
        tensor has none and the next call starts again.
        """
        held = self._device.get(name)
        if held is not None and held.size_bytes >= size_bytes:
            return False
        if held is not None:
            self._cuda.synchronize()
            self._device.pop(name).free()
            self._pinned.pop(name, None)
        self._device[name] = self._cuda.buffer(size_bytes)
        return True

    def address(self, name: str) -> int:
        """Of the device memory."""
        return self._device[name].address

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

    def copy_out(self, name: str, size_bytes: int) -> None:
        """Device into pinned memory, in the stream."""
        self._cuda.copy_out(self._host(name)[:size_bytes], self._device[name])

    def view(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The pinned memory as an array."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self._host(name)[:size].view(dtype).reshape(shape)

    def hand_over(self, name: str) -> HandedOver:
        """Give device memory away; the next ``reserve`` allocates anew."""
        given = self._device.pop(name)
        cuda = self._cuda
        cuda.retain()

        def free() -> None:
            with cuda.current():
                given.free()
            cuda.close()

        return HandedOver(given.address, free)

    def free(self) -> None:
        """Free everything."""
        while self._device:
            self._device.popitem()[1].free()
        self._pinned.clear()

    def _host(self, name: str) -> NDArray[np.uint8]:
        needed = self._device[name].size_bytes
        held = self._pinned.get(name)
        if held is None or len(held) < needed:
            held = self._pinned[name] = self._cuda.pinned(needed)
        return held
