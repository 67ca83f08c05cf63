"""Decisions of walks in a file: one that was interrupted goes on, one that is repeated is replayed.

What takes time in a walk are its decisions, the grid of each activation and the codes of each
weight; to hand values on to the next layer takes two forward passes. So only decisions are kept, by
the digest of all that they follow from.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from artefacts.arrays import unpack_arrays, write_arrays
from artefacts.documents import parse_json
from artefacts.faults import reading
from artefacts.files import read_bounded
from calibrators.ranges.ranges import Ranges
from graphs.identity import graph_hash
from quantization.improve.methods import Methods
from quantization.improve.walk.grid import Grid
from quantization.measure.execution import Arrays
from quantization.placement import Placement
from quantization.write.insert import QuantizedTensor

__all__ = ["Checkpoint", "KeptWalk", "Walks"]

_RULES = 2
"""Of the decisions: one more where the same samples lead to others."""
_MOST_WALKS = 4
_LIMIT_BYTES = 8 << 30
_EVERY_S = 20.0


@dataclass(kw_only=True, eq=False)
class KeptWalk:
    """What a walk has decided so far; a walk adds to it.

    Attributes:
        grids: observed tensor → its grid.
        weights: constant → its codes and scale.
        keep: called when something was added.
    """

    grids: dict[str, Grid] = field(default_factory=dict)
    weights: dict[str, QuantizedTensor] = field(default_factory=dict)
    keep: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Walks:
    """The walks of one checkpoint that follow from the same samples.

    Attributes:
        samples: their digest.
        take: a walk by its key.
        save: write the file.
    """

    samples: str
    take: Callable[[str], KeptWalk]
    save: Callable[[], None]

    def walk(
        self,
        model: onnx.ModelProto,
        placement: Placement,
        ranges: Ranges,
        methods: Methods,
        seed: int,
    ) -> KeptWalk:
        """What the same walk has decided before; nothing where there was none."""
        amax = ranges.amax_by_tensor
        facts = [_RULES, graph_hash(model), placement, amax, methods, seed, self.samples]
        return self.take(hashlib.sha256(repr(facts).encode()).hexdigest())


class Checkpoint:
    """The walks of one file, the last few.

    Args:
        path: the ``*.walks.npz``; one that exists is gone on from.

    Raises:
        ArtefactError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._walks = _read(path) if path.exists() else {}
        self._saved_s = time.monotonic()

    def of(self, samples: Sequence[Arrays]) -> Walks:
        """The walks that follow from these samples, which are hashed once for all of them."""
        digest = hashlib.sha256()
        for sample in samples:
            for name, array in sorted(sample.items()):
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return Walks(digest.hexdigest(), self.take, self.save)

    def take(self, key: str) -> KeptWalk:
        """The walk of a key; an empty one where there was none."""
        walk = self._walks.pop(key, None) or KeptWalk()
        walk.keep = self._save_now_and_then
        self._walks[key] = walk  # the last one used comes last
        while len(self._walks) > _MOST_WALKS:
            del self._walks[next(iter(self._walks))]
        return walk

    def save(self) -> None:
        """Write the file.

        Raises:
            InputError: it cannot be written.
        """
        meta: dict[str, Any] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for number, (key, walk) in enumerate(self._walks.items()):
            meta[key] = {
                "grids": {name: asdict(grid) for name, grid in walk.grids.items()},
                "weights": list(walk.weights),
            }
            for index, weight in enumerate(walk.weights.values()):
                arrays[f"{number}.{index}.codes"] = weight.codes
                arrays[f"{number}.{index}.scale"] = weight.scale
        text = json.dumps(meta, allow_nan=False).encode()
        write_arrays(self._path, {"meta": np.frombuffer(text, np.uint8), **arrays})
        self._saved_s = time.monotonic()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_s > _EVERY_S:
            self.save()


def _read(path: Path) -> dict[str, KeptWalk]:
    data = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="checkpoint of the improvement")
    remedy = "expected a *.walks.npz written by this program; delete it, it is made again"
    with reading(path, "checkpoint of the improvement", remedy=remedy):
        arrays = unpack_arrays(data)
        meta = parse_json(arrays["meta"].astype(np.uint8, casting="no").tobytes())
        return {
            key: KeptWalk(
                grids={name: _grid(fields) for name, fields in entry["grids"].items()},
                weights={
                    name: _weight(arrays, f"{number}.{index}")
                    for index, name in enumerate(entry["weights"])
                },
            )
            for number, (key, entry) in enumerate(meta.items())
        }


def _grid(fields: Mapping[str, Any]) -> Grid:
    amax, centre = float(fields["amax"]), float(fields["centre"])
    if not (0 < amax < np.inf and abs(centre) < np.inf):
        raise ValueError(f"a grid of {amax} around {centre}")
    return Grid(amax=amax, centre=centre, unsigned=bool(fields["unsigned"]))


def _weight(arrays: Mapping[str, Any], prefix: str) -> QuantizedTensor:
    codes, scale = arrays[f"{prefix}.codes"], arrays[f"{prefix}.scale"]
    if codes.dtype != np.int8 or scale.dtype != np.float32 or scale.ndim != 1:
        raise ValueError(f"codes are {codes.dtype}, scales {scale.dtype}{list(scale.shape)}")
    return QuantizedTensor(codes=codes.copy(), scale=scale.copy())
