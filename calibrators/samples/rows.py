"""Which rows of an activation belong to which sample, where a model's batch is fixed.

A model exported with a batch of 8 must be fed 8 rows. Usually row i of every activation is sample
i's, but nothing in ONNX says so: an activation may have its batch elsewhere, or mix rows. So the
first sample is run with 7 copies of itself and again with 7 rows of zeros, and what stays the same
bit by bit is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrators.samples.axes import fixed_batch, resolved
from calibrators.samples.data import Batch, batches
from calibrators.samples.samples import InputSpec, Sample

__all__ = ["Arrays", "Layout", "Run", "feeds_of", "find_layout"]

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a fixed batch shows in the activations.

    Attributes:
        size: samples of the batch; 1 where the model takes any number, or a sample fills it.
        rows: tensor name → rows per sample, 0 for what no sample changes; None where rows do not
            tell samples apart.
        axes: input name → axis along which samples lie.
    """

    size: int
    rows: Mapping[str, int] | None
    axes: Mapping[str, int] = field(default_factory=dict)

    def activations(self, run: Run, batch: Batch) -> Iterator[tuple[Sample, Arrays]]:
        """Each sample of a batch with the activations that it alone caused.

        Where rows do not tell, each sample fills a batch of its own: slow, and right up to a
        factor in the counts that is the same for all samples.
        """
        if self.size == 1:
            yield batch.samples[0], run(batch.inputs)
        elif self.rows is None:
            for sample in batch.samples:
                yield sample, run(_filled(sample, self.size, self.axes, np.copy))
        else:
            arrays = run(batch.inputs)
            for place, sample in enumerate(batch.samples):
                yield sample, {n: _part(a, self.rows[n], place) for n, a in arrays.items()}


def feeds_of(samples: Iterable[Sample], inputs: Sequence[InputSpec]) -> Iterator[Batch]:
    """What the model is fed with, one after the other: single samples, or its fixed batch."""
    if fixed_batch(inputs) in (None, 1):
        for sample in samples:
            yield Batch(inputs=dict(sample.inputs), samples=(sample,), count=1)
    else:
        yield from batches(samples, 1, inputs=inputs)


def find_layout(run: Run, sample: Sample, inputs: Sequence[InputSpec]) -> Layout:
    """Find the layout of a model's activations; runs the model where its batch is fixed.

    Args:
        run: the model, returning arrays that a second run leaves alone.
        sample: one to run it with.
        inputs: the model's inputs.
    """
    size = fixed_batch(inputs) or 1
    axes = {spec.name: spec.axis or 0 for spec in resolved(inputs)}
    if size == 1 or any(a.shape[axes[name]] != 1 for name, a in sample.inputs.items()):
        return Layout(size=1, rows=None)
    copied = run(_filled(sample, size, axes, np.copy))
    mixed = run(_filled(sample, size, axes, np.zeros_like))
    rows = {}
    for name, array in mixed.items():
        share = array.shape[0] // size if array.ndim and array.shape[0] % size == 0 else 0
        if _same(array, copied[name]):
            rows[name] = 0
        elif share and _same(array[:share], copied[name][:share]):
            rows[name] = share
        else:
            return Layout(size=size, rows=None, axes=axes)
    return Layout(size=size, rows=rows, axes=axes)


def _filled(
    sample: Sample,
    size: int,
    axes: Mapping[str, int],
    fill: Callable[[NDArray[Any]], NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """A batch of the sample and ``size`` - 1 times what ``fill`` makes of it."""
    return {
        name: np.concatenate([array, *[fill(array)] * (size - 1)], axis=axes[name])
        for name, array in sample.inputs.items()
    }


def _part(array: NDArray[Any], rows: int, place: int) -> NDArray[Any]:
    return array[place * rows : (place + 1) * rows] if rows else array


def _same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()
