"""The arrays of a ``*.stats.npz``, and what they must be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.arrays import unpack_arrays, write_arrays
from artefacts.documents import parse_json
from artefacts.faults import reading
from artefacts.files import read_bounded
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
    write_arrays(path, {"meta": np.frombuffer(text, np.uint8), **arrays})


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
        members = _members(data)
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


def _members(data: bytes) -> dict[str, NDArray[Any]]:
    members = unpack_arrays(data)
    if members.keys() != {"meta", *_ARRAYS}:
        raise ValueError(f"members {sorted(members)[:9]}, not {sorted(['meta', *_ARRAYS])}")
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
