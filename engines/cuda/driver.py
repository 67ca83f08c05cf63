"""What a runner has of CUDA: one stream in the device's primary context, and what happens in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.cuda import cuda_context
from engines.cuda.graphs import Graph, capture
from engines.cuda.memory import DeviceBuffer, PinnedBuffer

__all__ = ["Cuda"]


class Cuda:
    """One non-default stream (the default one synchronizes).

    Everything but ``current`` and ``close`` wants the context current.
    """

    def __init__(self, device: int = 0) -> None:
        """Make the stream.

        Raises:
            MissingLibraryError: PyCUDA is not installed.
            UnsupportedError: no such device, or it fails.
        """
        self._context = cuda_context(device)
        self._driver = self._context.driver
        self.device = device
        with self.current(), self._context.checked("make a stream"):
            self._stream = self._driver.Stream()

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT and DLPack take it."""
        return int(self._stream.handle)

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread."""
        return self._context.current()

    def buffer(self, size_bytes: int) -> DeviceBuffer:
        """Device memory.

        Raises:
            UnsupportedError: the GPU has too little free memory.
        """
        return DeviceBuffer(self._context, size_bytes)

    def pinned(self, size_bytes: int) -> PinnedBuffer:
        """Page-locked host memory, which the GPU can copy while the CPU goes on.

        Raises:
            UnsupportedError: so much memory cannot be locked.
        """
        return PinnedBuffer(self._context, size_bytes)

    def copy_in(self, target: DeviceBuffer, source: NDArray[np.uint8]) -> None:
        """Host to device, in the stream; ``source`` is pinned."""
        with self._context.checked("copy an input"):
            self._driver.memcpy_htod_async(target.address, source, self._stream)

    def copy_out(self, target: NDArray[np.uint8], source: DeviceBuffer) -> None:
        """Device to host, in the stream; ``target`` is pinned."""
        with self._context.checked("copy an output"):
            self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def copy_within(self, target: DeviceBuffer, address: int, size_bytes: int) -> None:
        """Device to device, in the stream."""
        with self._context.checked("copy a tensor"):
            self._driver.memcpy_dtod_async(target.address, address, size_bytes, self._stream)

    @contextmanager
    def marks(self) -> Iterator[Callable[[], Any]]:
        """A function that puts an event into the stream; the events are gone with the block."""
        events: list[Any] = []

        def mark() -> Any:
            with self._context.checked("record an event"):
                event = self._driver.Event()
                events.append(event)
                return event.record(self._stream)

        try:
            yield mark
        finally:
            events.clear()

    def between_ms(self, first: Any, second: Any) -> float:
        """Milliseconds from one event to another; both have happened."""
        with self._context.checked("tell the time between events"):
            return float(second.time_since(first))

    def synchronize(self) -> None:
        """Wait for the stream.

        Raises:
            UnsupportedError: something that was put into it failed.
        """
        with self._context.checked("finish its work"):
            self._stream.synchronize()

    def capture(self, enqueue: Callable[[], bool]) -> Graph | None:
        """A graph of what ``enqueue`` puts into the stream; ``None`` where that cannot be."""
        return capture(self.stream, enqueue)

    def close(self) -> None:
        """Give the stream back; its work is done.

        Raises:
            UnsupportedError: the device fails.
        """
        with self.current():
            del self._stream
