"""Files of plain arrays: an uncompressed zip of ``*.npy``, nothing pickled.

Uncompressed because then the same arrays are the same bytes whatever compression library is
installed, and because a file cannot unpack to more than its size.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.files import replace_atomic

__all__ = ["unpack_arrays", "write_arrays"]

_SUFFIX = ".npy"


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, all of them or nothing.

    Raises:
        InputError: the file cannot be written.
    """
    with replace_atomic(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # ZipInfo's default date is 1980: no clock in the file.
            archive.writestr(zipfile.ZipInfo(f"{name}{_SUFFIX}"), _npy(array))


def unpack_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in the bytes of such a file.

    Raises:
        ValueError: it is none, or damaged.
    """
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"member {entry.filename} is compressed")
                name = entry.filename.removesuffix(_SUFFIX)
                if name == entry.filename or name in found:
                    raise ValueError(f"member {entry.filename} is no array, or there twice")
                found[name] = _array(archive.read(entry))
    except zipfile.BadZipFile as err:
        raise ValueError(str(err)) from err
    return found


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> NDArray[Any]:
    """The inverse of ``_npy``, with the size checked before anything is allocated."""
    buffer = io.BytesIO(data)
    np.lib.format.read_magic(buffer)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    if dtype.hasobject or fortran:
        raise ValueError(f"an array is of {dtype} or in Fortran order")
    left = memoryview(data)[buffer.tell() :]
    if math.prod(shape) * dtype.itemsize != len(left):
        raise ValueError(f"an array of shape {shape} has {len(left)} bytes")
    return np.frombuffer(left, dtype).reshape(shape)
