"""What a tensor is in each sample: in memory as far as that goes, the rest in a file.

A walk holds the activations between two layers of all samples and of both copies: gigabytes, where
a model has large maps. Each is read a few times, one sample after another, which a file does
nearly as fast: the system keeps of it what memory there is.
"""

from __future__ import annotations

import bisect
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import RawIOBase
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Memory", "SampleArrays"]

logger = logging.getLogger(__name__)
Array = NDArray[Any]

_MEMORY_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class _InFile:
    """Where an array lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(kw_only=True, eq=False)
class Memory:
    """What a walk may hold in memory, and the file for the rest.

    Attributes:
        left_bytes: before arrays go to the file.
        smallest_bytes: of an array that does; smaller ones always stay.
        file_fails: whether the file could not be written: everything stays in memory then.
    """

    left_bytes: int = _MEMORY_BYTES
    smallest_bytes: int = 4096
    file_fails: bool = False
    _file: RawIOBase | None = None
    _end: int = 0
    _free: list[tuple[int, int]] = field(default_factory=list)

    def keep(self, array: Array) -> Array | _InFile:
        """The array itself, as far as memory goes, or where it lies in the file."""
        small = array.nbytes < self.smallest_bytes or array.dtype.hasobject
        place = None
        if not small and not self.file_fails and self.left_bytes < array.nbytes:
            place = self._write(array)
        if place is None:
            self.left_bytes -= array.nbytes
        return array if place is None else place

    def give_up(self, held: Array | _InFile) -> None:
        """What was kept is not asked for again."""
        if isinstance(held, _InFile):
            self._give_back(held)
        else:
            self.left_bytes += held.nbytes

    def overwrite(self, place: _InFile, array: Array) -> None:
        """Another array of the same size in a place."""
        assert self._file is not None
        rest = _bytes_of(np.ascontiguousarray(array))
        self._file.seek(place.offset)
        while rest:
            rest = rest[self._file.write(rest) :]

    def read(self, place: _InFile) -> Array:
        """The array in a place."""
        assert self._file is not None
        found = np.empty(place.shape, place.dtype)
        rest = _bytes_of(found)
        self._file.seek(place.offset)
        while rest:
            count = self._file.readinto(rest)
            assert count, "what was written is read"
            rest = rest[count:]
        return found

    def _write(self, array: Array) -> _InFile | None:
        """Where an array lies now; None where the file takes no more."""
        place = _InFile(offset=self._room(array.nbytes), shape=array.shape, dtype=array.dtype)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as long
            self.overwrite(place, array)
        except OSError as err:  # no place left: memory has to do
            logger.info("activations stay in memory: temporary file: %s", err.strerror)
            self.file_fails = True
            return None
        return place

    def _give_back(self, place: _InFile) -> None:
        """A place is free: what is written there next costs the system no new page."""
        offset, size = place.offset, place.nbytes
        after = bisect.bisect(self._free, (offset, size))
        if after < len(self._free) and self._free[after][0] == offset + size:
            size += self._free.pop(after)[1]
        if after and sum(self._free[after - 1]) == offset:
            offset, before = self._free.pop(after - 1)
            size += before
            after -= 1
        self._free.insert(after, (offset, size))

    def _room(self, size: int) -> int:
        """The first place that is free, or the end of the file."""
        for number, (offset, free) in enumerate(self._free):
            if free >= size:
                left = [(offset + size, free - size)] if free > size else []
                self._free[number : number + 1] = left
                return offset
        self._end += size
        return self._end - size

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(kw_only=True, eq=False)
class SampleArrays(Sequence[Array]):
    """The arrays of one tensor, one a sample.

    Attributes:
        memory: of the walk; None for arrays that others hold, too, and that cost it nothing.
    """

    memory: Memory | None = None
    _held: list[Array | _InFile] = field(default_factory=list)

    @classmethod
    def shared(cls, arrays: Iterable[Array]) -> SampleArrays:
        """Arrays that somebody else holds."""
        return cls(_held=list(arrays))

    @property
    def kinds(self) -> list[tuple[str, tuple[int, ...]]]:
        """Kind of type, e.g. "f", and shape of each."""
        return [(each.dtype.kind, each.shape) for each in self._held]

    @property
    def size_bytes(self) -> int:
        """Of all arrays, wherever they are."""
        return sum(each.nbytes for each in self._held)

    def append(self, array: Array) -> None:
        """Keep one more."""
        self._held.append(array if self.memory is None else self.memory.keep(array))

    def replace(self, number: int, array: Array) -> None:
        """Another array of the same shape and type in the place of one."""
        held = self._held[number]
        if isinstance(held, _InFile):
            assert self.memory is not None
            self.memory.overwrite(held, array)
        else:
            self._held[number] = array

    def give_up(self, number: int | None = None) -> None:
        """Forget an array, or all; nobody asks for it again."""
        for each in range(len(self._held)) if number is None else (number,):
            held, self._held[each] = self._held[each], np.zeros(0)
            if self.memory is not None:
                self.memory.give_up(held)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Array]:
        return (self[number] for number in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        held = self._held[index]
        if not isinstance(held, _InFile):
            return held
        assert self.memory is not None
        return self.memory.read(held)

    def __del__(self) -> None:
        self.give_up()


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
