"""Ranges: one number per tensor, why it is that number, and what it was taken from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artefacts.documents import parse_json
from artefacts.errors import ArtefactError
from artefacts.faults import reading
from artefacts.files import read_bounded, write_atomic
from artefacts.texts import shortened, shown

__all__ = [
    "LARGEST_AMAX",
    "LEVELS",
    "READER_ERROR",
    "READER_ERROR_CENTRED",
    "SMALLEST_AMAX",
    "Range",
    "Ranges",
]

LEVELS = 127  # codes on each side of zero: symmetric INT8 without -128
# Below this, amax / 127 is no normal float32, and engines flush it to a scale of zero.
SMALLEST_AMAX = LEVELS * float(np.finfo(np.float32).smallest_normal)
LARGEST_AMAX = float(np.finfo(np.float32).max)
READER_ERROR = "reader error"
"""Method of a range chosen by the error in what reads it, in an improved graph."""
READER_ERROR_CENTRED = f"{READER_ERROR}, centred"
"""The same, of a tensor that the improvement moved to the middle of its values."""
_FORMAT = 1
_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Range:
    """The symmetric range [-amax, amax] of one tensor.

    Attributes:
        amax: largest |x| that INT8 represents; finite and positive.
        method: what chose it, e.g. "entropy", "dead".
        why: a sentence where the method did not decide alone.
    """

    amax: float
    method: str
    why: str = ""

    def __post_init__(self) -> None:
        if not SMALLEST_AMAX <= self.amax <= LARGEST_AMAX:
            raise ArtefactError(
                f"amax of a range is {self.amax}, expected a number of {SMALLEST_AMAX:.3g} to "
                f"{LARGEST_AMAX:.3g} (its scale must be a float32); calibrate again"
            )

    @property
    def scale(self) -> float:
        """The quotient amax / 127 as the float32 that engines and caches hold."""
        return float(np.float32(self.amax / LEVELS))


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges of the tensors of one graph.

    Attributes:
        graph_hash: of the prepared graph they belong to.
        statistics_digest: of the statistics they were chosen from.
        method: what was asked for, e.g. "percentile:99.99".
        tensors: tensor name → range.
        samples: how many samples the statistics have seen.
        preprocess: the preprocessing spec as a dict, None where samples are fed as they are.
    """

    graph_hash: str
    statistics_digest: str
    method: str
    tensors: Mapping[str, Range]
    samples: int
    preprocess: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", dict(sorted(self.tensors.items())))

    def amax(self, name: str) -> float:
        """Range of one tensor.

        Raises:
            ArtefactError: the tensor has none.
        """
        return self[name].amax

    @property
    def amax_by_tensor(self) -> dict[str, float]:
        """Range of each tensor, as ``quantization.place`` takes them."""
        return {name: entry.amax for name, entry in self.tensors.items()}

    def __getitem__(self, name: str) -> Range:
        try:
            return self.tensors[name]
        except KeyError:
            raise ArtefactError(
                f"tensor {name!r} has no range among {len(self.tensors)}, expected one; observe "
                "the samples again with the placement of this model"
            ) from None

    def check_graph(self, graph_hash: str) -> None:
        """Refuse ranges of another graph.

        Raises:
            ArtefactError: they are of another graph.
        """
        if self.graph_hash != graph_hash:
            raise ArtefactError(
                f"ranges are of graph {self.graph_hash[:12]}, expected {graph_hash[:12]}; "
                "calibrate this model"
            )

    def check_statistics(self, digest: str) -> None:
        """Refuse ranges of other statistics: the two are not replaced as one.

        Raises:
            ArtefactError: they were chosen from others.
        """
        if self.statistics_digest != digest:
            raise ArtefactError(
                f"ranges were chosen from statistics {self.statistics_digest[:12]}, expected "
                f"{digest[:12]}; choose them again from these"
            )

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the content; equal for equal ranges."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def replace(self, tensors: Mapping[str, Range]) -> Ranges:
        """The same with some tensors' ranges replaced or added."""
        return dataclasses.replace(self, tensors={**self.tensors, **tensors})

    def shared(self, names: Iterable[str], *, why: str) -> Ranges:
        """The same with one range for all of ``names``: the largest of them.

        Args:
            names: tensors that a layer joins and that need equal scales, e.g. inputs of Concat.
            why: the sentence kept with each range that grows.
        """
        group = [(name, self[name]) for name in names]
        if not group:
            return self
        largest = max(entry.amax for _, entry in group)
        grown = {
            name: dataclasses.replace(entry, amax=largest, why=why)
            for name, entry in group
            if entry.amax < largest
        }
        return self.replace(grown)

    def save(self, path: str | Path) -> None:
        """Write a ``*.ranges.json``, all of it or nothing.

        Raises:
            InputError: the folder cannot be written to.
        """
        write_atomic(path, self._text().encode())

    @classmethod
    def load(cls, path: str | Path) -> Ranges:
        """Read a ``*.ranges.json``.

        Raises:
            InputError: no such file, or too large.
            ArtefactError: not such a file, or damaged.
        """
        data = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="ranges")
        remedy = (
            "expected a *.ranges.json written by this program; choose the ranges again from the "
            "statistics"
        )
        with reading(path, "ranges", remedy=remedy):
            return cls._parse(parse_json(data))

    @classmethod
    def _parse(cls, content: Any) -> Ranges:
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"format is not {_FORMAT}")
        fields = {entry.name: content[entry.name] for entry in dataclasses.fields(cls)}
        for name, kind in (("graph_hash", str), ("statistics_digest", str), ("method", str)):
            if not isinstance(fields[name], kind):
                raise TypeError(f"{name} is {shown(fields[name])}")
        if not isinstance(fields["samples"], int) or fields["samples"] < 0:
            raise ValueError(f"samples is {shown(fields['samples'])}")
        if not isinstance(fields["preprocess"], dict | None):
            raise TypeError(f"preprocess is {shown(fields['preprocess'])}")
        json.dumps(fields["preprocess"], allow_nan=False)  # what could not be written again
        tensors = {name: _parse_range(name, entry) for name, entry in fields["tensors"].items()}
        return cls(**{**fields, "tensors": tensors})

    def _text(self) -> str:
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _parse_range(name: str, entry: Any) -> Range:
    name.encode()  # refuses what is no text
    amax, method, why = entry["amax"], entry["method"], entry.get("why", "")
    if isinstance(amax, bool) or not isinstance(amax, int | float) or not math.isfinite(amax):
        raise ValueError(f"amax of tensor {shortened(name)} is {shown(amax)}")
    if not isinstance(method, str) or not isinstance(why, str):
        raise TypeError(f"method of tensor {shortened(name)} is {shown(method)}")
    return Range(amax=float(amax), method=method, why=why)
