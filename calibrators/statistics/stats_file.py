"""The bytes of a ``*.stats.npz``: plain arrays in an uncompressed zip, nothing pickled.

Uncompressed because then the same statistics are the same bytes whatever compression library is
installed, and because a file cannot unpack to more than its size.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.documents import parse_json
from artefacts.faults import reading
from artefacts.files import read_bounded, replace_atomic
from artefacts.texts import shown
from calibrators.statistics.tensor_statistics import BINS, LOWEST_EXPONENT, TensorStatistics

__all__ = ["decode", "digest_content", "encode"]

Levels = Sequence[Mapping[str, TensorStatistics]]

_FORMAT = 1
_MOST_LEVELS = 16
_DIGEST = re.compile(r"[0-9a-f]{8,128}")
_LIMIT_BYTES = 4 << 30
_HIGHEST_EXPONENT = 128  # of the largest float32
_ARRAYS = {
    "counts": np.dtype("<i8"),
    "exponent": np.dtype("<i8"),
    "count": np.dtype("<i8"),
    "zeros": np.dtype("<i8"),
    "nan": np.dtype("<i8"),
    "inf": np.dtype("<i8"),
    "min": np.dtype("<f8"),
    "max": np.dtype("<f8"),
}


def encode(path: str | Path, meta: Mapping[str, Any], levels: Levels) -> None:
    """Write statistics; ``levels`` are all samples' and then the subsets' tensors."""
    text, arrays = _pack(meta, levels)
    with replace_atomic(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo's default date is 1980: no clock in the file.
        archive.writestr(zipfile.ZipInfo("meta.npy"), _npy(np.frombuffer(text, np.uint8)))
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy(array))


def digest_content(meta: Mapping[str, Any], levels: Levels) -> str:
    """Hex SHA-256 of what ``encode`` would write."""
    return _digest(*_pack(meta, levels))


def decode(path: str | Path) -> tuple[dict[str, Any], list[dict[str, TensorStatistics]]]:
    """Read what ``encode`` wrote.

    Raises:
        InputError: no such file, or too large.
        ArtefactError: not such a file, damaged, or altered.
    """
    data = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="statistics")
    remedy = "expected a *.stats.npz written by this program; observe the samples again"
    with reading(path, "statistics", remedy=remedy):
        try:
            members = _members(data)
        except zipfile.BadZipFile as err:
            raise ValueError(str(err)) from err
        meta = parse_json(members.pop("meta").tobytes())
        levels = _unpack(meta, members)
    return meta, levels


def _pack(meta: Mapping[str, Any], levels: Levels) -> tuple[bytes, dict[str, NDArray[Any]]]:
    names = list(levels[0])
    cells = [[level[name] for name in names] for level in levels]
    shape = (len(levels), len(names))
    arrays = {
        name: np.array([[getattr(cell, name) for cell in row] for row in cells], dtype)
        for name, dtype in _ARRAYS.items()
    }
    arrays = {
        name: array.reshape((*shape, BINS) if name == "counts" else shape)
        for name, array in arrays.items()
    }
    whole = {
        **meta,
        "format": _FORMAT,
        "tensors": names,
        "levels": len(levels),
    }
    text = json.dumps(whole, sort_keys=True, allow_nan=False).encode()
    return text, arrays


def _digest(text: bytes, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text)
    for name in _ARRAYS:
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


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
    left = data[buffer.tell() :]
    if math.prod(shape) * dtype.itemsize != len(left):
        raise ValueError(f"an array of shape {shape} has {len(left)} bytes")
    return np.frombuffer(left, dtype).reshape(shape)


def _members(data: bytes) -> dict[str, NDArray[Any]]:
    members = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        expected = {f"{name}.npy" for name in ("meta", *_ARRAYS)}
        if set(archive.namelist()) != expected or len(archive.namelist()) != len(expected):
            raise ValueError(f"members {sorted(archive.namelist())[:9]}, not {sorted(expected)}")
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"member {entry.filename} is compressed")
            members[entry.filename.removesuffix(".npy")] = _array(archive.read(entry))
    if members["meta"].dtype != np.uint8:
        raise ValueError(f"meta is {members['meta'].dtype}, not uint8")
    return members


def _unpack(
    meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> list[dict[str, TensorStatistics]]:
    _check_meta(meta)
    names = meta["tensors"]
    shape = (meta["levels"], len(names))
    for name, dtype in _ARRAYS.items():
        expected = (*shape, BINS) if name == "counts" else shape
        if arrays[name].shape != expected or arrays[name].dtype != dtype:
            raise ValueError(f"{name} is {arrays[name].dtype}{list(arrays[name].shape)}")
    levels = []
    for row in range(shape[0]):
        level = {}
        for column, name in enumerate(names):
            values = {key: arrays[key][row, column] for key in _ARRAYS}
            level[name] = TensorStatistics(
                counts=values.pop("counts").copy(),
                **{key: value.item() for key, value in values.items()},
            )
            _check(name, level[name])
        levels.append(level)
    return levels


def _check_meta(meta: Mapping[str, Any]) -> None:
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise ValueError(f"format is not {_FORMAT}")
    texts = [meta["graph_hash"], *meta["samples"], *meta["tensors"]]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name or digest is not a text")
    if not all(_DIGEST.fullmatch(digest) for digest in meta["samples"]):
        raise ValueError("a sample's digest is not hexadecimal")
    if not isinstance(meta["preprocess"], dict | None):
        raise TypeError("preprocess is malformed")
    if not isinstance(meta["levels"], int) or not 1 <= meta["levels"] <= _MOST_LEVELS:
        raise ValueError(f"levels is {shown(meta['levels'])}")


def _check(name: str, cell: TensorStatistics) -> None:
    """Refuse numbers that no samples can have led to."""
    whole = (cell.count, cell.zeros, cell.nan, cell.inf)
    if min(whole) < 0 or cell.counts.min() < 0 or cell.counts.sum() + cell.zeros != cell.count:
        raise ValueError(f"counts of tensor {name} do not add up")
    if not LOWEST_EXPONENT <= cell.exponent <= _HIGHEST_EXPONENT:
        raise ValueError(f"exponent of tensor {name} is {cell.exponent}")
    if cell.count and not -np.inf < cell.min <= cell.max < np.inf:
        raise ValueError(f"range of tensor {name} is {cell.min} to {cell.max}")
