"""Arrays in .npy and .npz files, a row at a time: mapped where stored plainly, streamed where not.

Nothing is ever unpickled, and no array is read as a whole unless it is asked for.
"""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from artefacts.errors import DataError

__all__ = ["ArrayFile", "array_of", "open_arrays"]

_LARGEST_ROW_BYTES = 1 << 30
_NUMERIC = "biuf"

# What zipfile and numpy's header parser raise on damaged files; found by fuzzing them
# (test_data_arrays.py). RuntimeError: encrypted; NotImplementedError: another compression.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    LookupError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
)


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """One array of a file, by its header.

    Attributes:
        path: the .npy or .npz file.
        member: name inside an .npz without ``.npy``, None for an .npy.
        shape: e.g. (1000, 49, 10).
        dtype: element type.
        fortran: whether it lies in column order.
        offset: of the first element: in the file where it can be mapped, else in the member.
        compressed: whether it must be inflated.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    compressed: bool

    def __str__(self) -> str:
        return f"{self.path}" + (f" ({self.member})" if self.member is not None else "")

    def read(self) -> NDArray[Any]:
        """The whole array, for labels and single samples.

        Raises:
            DataError: larger than 1 GiB, or damaged.
        """
        if not self.compressed:
            return self._mapped()
        size = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        raw = b"".join(self._pieces(size, [0]))
        array = np.frombuffer(raw, self.dtype)
        return array.reshape(self.shape, order="F" if self.fortran else "C")

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows (without axis 0) at ascending ``indices``.

        Raises:
            DataError: a row is larger than 1 GiB, or the file is damaged.
        """
        if not self.compressed:
            array = self._mapped()
            for index in indices:
                yield array[index]
        elif self.fortran:
            # Rows do not lie together: the array has to be inflated as a whole.
            array = self.read()
            for index in indices:
                yield array[index]
        else:
            size = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
            for raw in self._pieces(size, indices):
                yield np.frombuffer(raw, self.dtype).reshape(self.shape[1:])

    def _mapped(self) -> NDArray[Any]:
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        try:
            return np.memmap(
                self.path,
                self.dtype,
                mode="r",
                offset=self.offset,
                shape=self.shape,
                order="F" if self.fortran else "C",
            )
        except (OSError, ValueError, OverflowError) as err:
            raise _damaged(self.path, str(err)) from err

    def _pieces(self, size: int, indices: Sequence[int]) -> Iterator[bytes]:
        """Pieces of ``size`` bytes at ascending piece numbers of the inflated member."""
        if size > _LARGEST_ROW_BYTES:
            raise DataError(
                f"{self} holds pieces of {size} bytes, expected at most {_LARGEST_ROW_BYTES} for "
                "one sample; save it uncompressed (numpy.savez) or in smaller arrays"
            )
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.member}.npy") as file:
                _skip(file, self.offset)
                at = 0
                for index in indices:
                    _skip(file, (index - at) * size)
                    yield _exactly(file, size)
                    at = index + 1
        except _DAMAGED as err:
            raise _damaged(self.path, str(err)) from err


def open_arrays(path: Path) -> dict[str, ArrayFile]:
    """The arrays of an .npz by name, or the one of an .npy under the name ``""``.

    Raises:
        DataError: not such a file, damaged, holding Python objects or arrays that are no numbers.
    """
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                array = _header(file, path, None)
                _check_size(array, path.stat().st_size - array.offset)
            return {"": array}
        return _members(path)
    except DataError:
        raise
    except _DAMAGED as err:
        raise _damaged(path, str(err)) from err


def array_of(data: bytes, path: Path, name: str) -> NDArray[Any]:
    """The array of an .npy that is in memory; ``path`` and ``name`` say in errors where it was.

    Raises:
        DataError: damaged, holding Python objects or values that are no numbers.
    """
    try:
        array = _header(io.BytesIO(data), path, name)
        _check_size(array, len(data) - array.offset)
        count = int(np.prod(array.shape, dtype=object))
        values = np.frombuffer(data, array.dtype, count=count, offset=array.offset if count else 0)
        return values.reshape(array.shape, order="F" if array.fortran else "C")
    except DataError:
        raise
    except _DAMAGED as err:
        raise _damaged(path, f"{name}: {err}") from err


def _members(path: Path) -> dict[str, ArrayFile]:
    arrays: dict[str, ArrayFile] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename[:-4]
            if name in arrays:
                raise _damaged(path, f"it has two arrays named {name}")
            with archive.open(info) as file:
                array = _header(file, path, name)
            _check_size(array, info.file_size - array.offset)
            if info.compress_type == zipfile.ZIP_STORED:
                array = _plain(array, info, path)
            arrays[name] = array
    if not arrays:
        raise _damaged(path, "it holds no array")
    return arrays


def _header(file: IO[bytes], path: Path, member: str | None) -> ArrayFile:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy format {version} is for records, not for arrays of numbers")
    if dtype.hasobject:
        raise DataError(
            f"{path} holds Python objects (a pickle){f' in {member}' if member else ''}, expected "
            "arrays of numbers, since unpickling runs code; save each array with its own dtype"
        )
    if dtype.kind not in _NUMERIC:
        raise DataError(
            f"{path} holds {dtype} values{f' in {member}' if member else ''}, expected integers, "
            "floats or booleans; save numbers"
        )
    return ArrayFile(
        path=path,
        member=member,
        shape=shape,
        dtype=dtype,
        fortran=fortran and len(shape) > 1,
        offset=file.tell(),
        compressed=member is not None,
    )


def _check_size(array: ArrayFile, found: int) -> None:
    size = int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize
    if size > found:
        raise DataError(
            f"{array} is cut short: {found} bytes of data, expected {size} for {array.dtype} "
            f"{list(array.shape)}; copy or save it again"
        )


def _plain(array: ArrayFile, info: zipfile.ZipInfo, path: Path) -> ArrayFile:
    """A stored member can be mapped: its data begins after the local header (30 bytes + names)."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
        if len(local) < 30 or info.flag_bits & 1:
            raise ValueError("its directory points outside the file, or it is encrypted")
        start = info.header_offset + 30
        start += int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return ArrayFile(
        path=path,
        member=array.member,
        shape=array.shape,
        dtype=array.dtype,
        fortran=array.fortran,
        offset=start + array.offset,
        compressed=False,
    )


def _exactly(file: IO[bytes], size: int) -> bytes:
    raw = file.read(size)
    if len(raw) != size:
        raise EOFError("it ends early")
    return raw


def _skip(file: IO[bytes], count: int) -> None:
    """Read past ``count`` bytes, a megabyte at a time."""
    while count > 0:
        count -= len(_exactly(file, min(count, 1 << 20)))


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"array file {path} cannot be read ({reason}), expected arrays saved with numpy.save or "
        "numpy.savez; save it again"
    )
