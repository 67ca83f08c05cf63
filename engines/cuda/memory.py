"""Device and pinned memory, given back with its last reference, in whatever thread that is."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.cuda import CudaContext, every_step
from artefacts.errors import UnsupportedError

__all__ = ["DeviceBuffer", "PinnedBuffer", "live_buffers"]

_live: set[int] = set()
_lock = threading.Lock()
# What a forked child inherited: kept, for giving it back there would touch the parent's device.
_inherited: list[Any] = []


def live_buffers() -> int:
    """Device and pinned buffers that were allocated and not freed; tests hold it to zero."""
    return len(_live)


class DeviceBuffer:
    """Device memory: who lends it keeps a reference, so it lives as long as anybody uses it."""

    def __init__(self, context: CudaContext, size_bytes: int) -> None:
        """Allocate; call with the context current.

        Raises:
            UnsupportedError: the GPU has too little free memory, or fails.
        """
        try:
            with context.checked("hold a tensor"):
                allocation = context.driver.mem_alloc(max(size_bytes, 1))
        except UnsupportedError as err:
            if not isinstance(err.__cause__, context.driver.MemoryError):
                raise
            raise _too_little(context, size_bytes) or err from err
        self.address = int(allocation)
        self.size_bytes = size_bytes
        _keep_until_unused(self, context, allocation)


class PinnedBuffer:
    """Page-locked host memory; an array of it keeps it alive."""

    def __init__(self, context: CudaContext, size_bytes: int) -> None:
        """Allocate; call with the context current.

        Raises:
            UnsupportedError: so much memory cannot be locked, or the GPU fails.
        """
        with context.checked(f"lock {size_bytes} bytes of host memory"):
            array = context.driver.pagelocked_empty(max(size_bytes, 1), np.uint8)
        self.__array_interface__ = array.__array_interface__
        self.size_bytes = size_bytes
        _keep_until_unused(self, context, array.base)

    def array(self) -> NDArray[np.uint8]:
        """All of it."""
        return np.asarray(self)


def _keep_until_unused(owner: object, context: CudaContext, allocation: Any) -> None:
    with _lock:
        _live.add(id(allocation))
    weakref.finalize(owner, _free, context, allocation, os.getpid())


def _free(context: CudaContext, allocation: Any, process: int) -> None:
    with _lock:
        _live.discard(id(allocation))
    if process != os.getpid():
        _inherited.append(allocation)
        return

    def free() -> None:
        with context.current(), context.checked("free memory"):
            allocation.free()

    every_step(free)  # a device that fails frees nothing, and nobody could do anything about it


def _too_little(context: CudaContext, size_bytes: int) -> UnsupportedError | None:
    """The error with numbers; ``None`` where a device that fails does not tell them."""
    try:
        with context.checked("tell its free memory"):
            free, total = context.driver.mem_get_info()
    except UnsupportedError:
        return None
    return UnsupportedError(
        f"GPU memory has {free >> 20} of {total >> 20} MiB free, expected {size_bytes} bytes for "
        "a tensor; use a smaller batch or fewer engines"
    )
