"""Ranges and statistics beside an engine, for the report's histograms.

Both are files of the earlier stages: ``*.ranges.json`` (tensor → amax and method) and
``*.stats.npz`` (``meta``, a JSON text, and ``counts`` (S, T, 4096) over [0, 2^``exponent``)).
Read only where their hash is the one that the engine's manifest names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from artefacts.files import read_bounded, sha256_bytes
from benchmarks.report.document import RangeHistogram

__all__ = ["find_ranges"]

LIMIT_BYTES = 256 << 20
SHOWN_BINS = 96
KEPT = 12


def find_ranges(engine: Path, passport: Mapping[str, Any]) -> tuple[RangeHistogram, ...]:
    """Histograms of the tensors that are clipped most; none where a file is missing.

    Args:
        engine: its folder is searched.
        passport: of its manifest, with ``ranges_sha256`` and ``statistics_sha256``.
    """
    ranges = _named(engine.parent, "*.ranges.json", passport.get("ranges_sha256"))
    statistics = _named(engine.parent, "*.stats.npz", passport.get("statistics_sha256"))
    if ranges is None or statistics is None:
        return ()
    chosen = json.loads(ranges)["tensors"]
    with np.load(io.BytesIO(statistics), allow_pickle=False) as arrays:
        names = json.loads(arrays["meta"].tobytes())["tensors"]
        counts, exponents = arrays["counts"][0], arrays["exponent"][0]
    found = [
        _histogram(name, counts[row], int(exponents[row]), chosen[name])
        for row, name in enumerate(names)
        # A range around the middle of values that were counted from zero says nothing of them.
        if name in chosen and not str(chosen[name]["method"]).endswith("centred")
    ]
    found.sort(key=lambda entry: -_clipped(entry))
    return tuple(found[:KEPT])


def _named(folder: Path, pattern: str, sha256: object) -> bytes | None:
    """The file of that hash."""
    for path in sorted(folder.glob(pattern)) if sha256 else ():
        if path.stat().st_size <= LIMIT_BYTES:
            data = read_bounded(path, limit_bytes=LIMIT_BYTES, what="calibration file")
            if sha256_bytes(data) == sha256:
                return data
    return None


def _histogram(name: str, counts: Any, exponent: int, chosen: Mapping[str, Any]) -> RangeHistogram:
    """A tensor's counts on fewer, wider bins, up to the largest value or threshold."""
    width, amax = 2.0**exponent / counts.size, float(chosen["amax"])
    used = int(np.max(np.nonzero(counts)[0], initial=0)) + 1
    shown = min(max(used, int(np.ceil(amax / width))), counts.size)
    step = -(-shown // SHOWN_BINS)
    padded = np.pad(counts[:shown], (0, -shown % step))
    return RangeHistogram(
        tensor=name,
        width=width * step,
        counts=tuple(padded.reshape(-1, step).sum(axis=1).tolist()),
        amax=amax,
        method=str(chosen["method"]),
    )


def _clipped(entry: RangeHistogram) -> float:
    """Share of the values beyond the threshold."""
    first = int(np.ceil(entry.amax / entry.width))
    return sum(entry.counts[first:]) / max(sum(entry.counts), 1)
