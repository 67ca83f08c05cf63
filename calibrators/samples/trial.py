"""Finding out by running the model which axis counts samples.

Two samples are run together in both orders, one of them beside itself, and alone:

    [a, b]  [b, a]  [a, a]  [a]

Along a batch axis every output has the one sample's result in its place, whatever is beside it. At
one size the same kernels run, so there the results are to be the same; other sizes may round
otherwise. Where place or neighbour shows, or an output has no place for each sample (views pooled
over axis 0, nodes of a graph, frames of a sequence), the axis is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import ModelError
from calibrators.samples.axes import SampleAxes, fixed_batch
from calibrators.samples.samples import InputSpec, Sample

__all__ = ["FOUND", "Arrays", "Run", "Trial"]

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]

FOUND = "found by running"
_SAME_SIZE_DB = 60.0  # the same kernels: equal, but for sums that threads add up in any order
_OTHER_SIZE_DB = 30.0  # other kernels round otherwise, and a step of rounding may follow


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One reading of the inputs, held against what the model does.

    Attributes:
        run: the model, with every output and whatever else must carry the axis.
        specs: the inputs with the axes that are tried.
        samples: one or two, read so.
        outputs: the model's own.
        chosen: outputs whose shape depends on values, which decide nothing.
    """

    run: Run
    specs: Sequence[InputSpec]
    samples: Sequence[Sample]
    outputs: Sequence[str]
    chosen: Collection[str]

    def judge(self) -> SampleAxes | None:
        """What was found; None where the axes are no batch.

        Raises:
            ModelError: the model does not run on a row.
        """
        a, size = self._row(self.samples[0], 0), fixed_batch(self.specs)
        b = self._neighbour(a)
        alone = self.run(a) if size is None else None
        count = size or 2
        try:
            ab = self.run(self._stacked([a, *[b] * (count - 1)]))
            ba = self.run(self._stacked([b, a, *[b] * (count - 2)]))
            aa = self.run(self._stacked([a] * count))
        except ModelError:
            # The inputs leave the number free, something inside does not: a Reshape to one row.
            if alone is None or self._length() > 1:
                raise
            return self._found(apart=True, at_most_one=True)
        places = {}
        for name in aa:
            if name in self.chosen or aa[name].dtype.kind not in "biufV":
                continue
            results = (ab[name], ba[name], aa[name])
            place = _place(*results, None if alone is None else alone[name], count)
            if place is not None:
                places[name] = place
            elif not _constant(*results):
                return None
        if not places:
            return None
        return self._found(apart=all(places.get(name) == (0, 1) for name in self.outputs))

    def _found(self, *, apart: bool, at_most_one: bool = False) -> SampleAxes:
        axes = {spec.name: spec.axis for spec in self.specs}
        return SampleAxes(axes=axes, apart=apart, at_most_one=at_most_one, why=FOUND)

    def _length(self) -> int:
        """Rows of the first sample as the data has it."""
        found = self.samples[0].inputs
        return max(int(found[s.name].shape[s.axis]) for s in self.specs if s.axis is not None)

    def _row(self, sample: Sample, number: int) -> Arrays:
        return {
            spec.name: array if spec.axis is None else _part(array, spec.axis, number, 1)
            for spec in self.specs
            for array in [sample.inputs[spec.name]]
        }

    def _neighbour(self, a: Arrays) -> Arrays:
        """Another sample of the same shapes, else a shuffled and fainter copy."""
        others = [self._row(sample, 0) for sample in self.samples[1:]]
        if self._length() > 1:
            others.append(self._row(self.samples[0], 1))
        for other in others:
            mine = {s.name: a[s.name] if s.axis is None else other[s.name] for s in self.specs}
            alike = all(mine[name].shape == array.shape for name, array in a.items())
            if alike and any(mine[name].tobytes() != array.tobytes() for name, array in a.items()):
                return mine
        rng = np.random.default_rng(0)
        return {s.name: a[s.name] if s.axis is None else _other(a[s.name], rng) for s in self.specs}

    def _stacked(self, rows: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
        return {
            spec.name: rows[0][spec.name]
            if spec.axis is None
            else np.concatenate([row[spec.name] for row in rows], axis=spec.axis)
            for spec in self.specs
        }


def _other(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    shuffled = rng.permutation(array.ravel()).reshape(array.shape)
    return shuffled if array.dtype.kind in "biu" else (shuffled * 0.75).astype(array.dtype)


def _constant(*arrays: NDArray[Any]) -> bool:
    """Whether no sample changes an output."""
    first = arrays[0]
    return all(a.shape == first.shape and a.tobytes() == first.tobytes() for a in arrays[1:])


def _place(
    ab: NDArray[Any],
    ba: NDArray[Any],
    aa: NDArray[Any],
    alone: NDArray[Any] | None,
    count: int,
) -> tuple[int, int] | None:
    """Axis of an output along which the samples lie, and its rows a sample; None for none."""
    if not ab.shape == ba.shape == aa.shape or (alone is not None and alone.ndim != aa.ndim):
        return None
    for axis, length in enumerate(aa.shape):
        share = length // count
        if length % count or not length:
            continue
        if alone is not None and alone.shape != (*aa.shape[:axis], share, *aa.shape[axis + 1 :]):
            continue
        mine = _part(aa, axis, 0, share)
        if (
            _alike(mine, _part(ab, axis, 0, share), _SAME_SIZE_DB)
            and _alike(_part(aa, axis, 1, share), _part(ba, axis, 1, share), _SAME_SIZE_DB)
            and _alike(mine, _part(aa, axis, 1, share), _OTHER_SIZE_DB)
            and (alone is None or _alike(mine, alone, _OTHER_SIZE_DB))
        ):
            return axis, share
    return None


def _part(array: NDArray[Any], axis: int, place: int, share: int) -> NDArray[Any]:
    index = (slice(None),) * axis + (slice(place * share, (place + 1) * share),)
    return array[index]


def _alike(wanted: NDArray[Any], found: NDArray[Any], least_db: float) -> bool:
    """Whether the energy of the difference is so far below that of the values; NaN equals NaN."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    known = np.isfinite(a)
    if not np.array_equal(known, np.isfinite(b)):
        return False
    noise = float(((a - b)[known] ** 2).sum())
    return noise <= 10 ** (-least_db / 10) * float((a[known] ** 2).sum())
