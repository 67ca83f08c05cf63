"""Which rows of an activation belong to which sample, where a model's batch is fixed.

A model exported with a batch of 8 must be fed 8 rows. Usually row i of every activation is sample
i's, but nothing in ONNX says so: an activation may have its batch elsewhere, or mix rows. So the
first sample is run with 7 copies of itself and again with 7 rows of zeros, and what stays the same
bit by bit is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrators.data import batches
from calibrators.samples import InputSpec, Sample, has_batch_axis

__all__ = ["Arrays", "Run", "run_each"]

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]


def run_each(
    run: Run, samples: Iterable[Sample], inputs: Sequence[InputSpec]
) -> Iterator[tuple[Sample, Arrays]]:
    """Each sample with the activations that it alone caused.

    A model whose activations cannot be told apart by rows gets one sample at a time, repeated to
    fill its batch: slow, and right up to a factor in the counts that is the same for all samples.

    Args:
        run: the model, from feeds to activations.
        samples: what to run.
        inputs: the model's inputs.
    """
    size = _fixed_batch(inputs)
    if size is None:
        for sample in samples:
            yield sample, run(sample.inputs)
        return
    rows: Mapping[str, int] | None = {}
    for number, batch in enumerate(batches(samples, size, inputs=inputs)):
        if number == 0:
            rows = _rows_of_each(run, batch.samples[0], size)
        if rows is None:
            for sample in batch.samples:
                yield sample, run(_filled(sample, size, np.copy))
            continue
        arrays = run(batch.inputs)
        for place, sample in enumerate(batch.samples):
            yield sample, {name: _part(arrays[name], rows[name], place) for name in arrays}


def _fixed_batch(inputs: Sequence[InputSpec]) -> int | None:
    """The batch that the model insists on; None for one sample at a time."""
    first = inputs[0].shape[0] if inputs and inputs[0].shape else None
    fixed = isinstance(first, int) and first > 1 and has_batch_axis(tuple(inputs))
    return int(first) if isinstance(first, int) and fixed else None


def _filled(
    sample: Sample, size: int, fill: Callable[[NDArray[Any]], NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """A batch of the sample and ``size`` - 1 times what ``fill`` makes of it."""
    return {
        name: np.concatenate([array, *[fill(array)] * (size - 1)])
        for name, array in sample.inputs.items()
    }


def _rows_of_each(run: Run, sample: Sample, size: int) -> dict[str, int] | None:
    """Tensor name → rows per sample, 0 for what no sample changes; None where rows do not tell."""
    copied = run(_filled(sample, size, np.copy))
    mixed = run(_filled(sample, size, np.zeros_like))
    rows = {}
    for name, array in mixed.items():
        share = array.shape[0] // size if array.ndim and array.shape[0] % size == 0 else 0
        if _same(array, copied[name]):
            rows[name] = 0
        elif share and _same(array[:share], copied[name][:share]):
            rows[name] = share
        else:
            return None
    return rows


def _part(array: NDArray[Any], rows: int, place: int) -> NDArray[Any]:
    return array[place * rows : (place + 1) * rows] if rows else array


def _same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()
