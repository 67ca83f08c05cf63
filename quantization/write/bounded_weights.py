"""Weights for CPUs without VNNI: no pair of them can saturate a sum of 16 bits (graphs.pairs).

One bit less for all weights would do, and it is what other tools take. But only a few pairs bind
(2 to 8 % of those of trained networks), so of each output channel a slightly larger scale is
looked for, and pairs that are still too large give up half of what is too much each. Where layers
are rounded with error feedback, the weights that follow make up for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.threads import in_parallel
from graphs.pairs import (
    beyond_pairs,
    pair_partners,
    pairing_axis_of,
    saturating,
    within_pairs,
)
from graphs.view import GraphView
from quantization.arithmetic import symmetric_scale
from quantization.placement import QuantizedWeight

__all__ = [
    "as_rows",
    "bounded_codes",
    "bounded_scale",
    "from_rows",
    "partners_of",
    "quantize_bounded",
]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_MOST_VALUES = 1 << 18  # that are worked on at once, in a dozen copies that a cache holds
# The largest pair is 127 + 127: above 254 / 128 of its scale no row has a pair that binds.
_FACTORS = np.linspace(1.0, 254 / 128, 17)


def partners_of(view: GraphView, weight: QuantizedWeight) -> NDArray[np.int64]:
    """The partner of each weight in a row, -1 for none; see ``graphs.pairs.pair_partners``."""
    node = next(node for node in view.nodes if node.name == weight.node)
    shape = [size or 1 for size in view.shape(weight.tensor) or ()]
    axis = pairing_axis_of(node, shape)
    if axis is None:
        return np.full(int(np.prod(shape)), -1)
    return pair_partners(shape, axis, weight.axis)


def as_rows(values: Array, axis: int | None) -> Array:
    """A weight as (output channels, K); as one row where it has one scale."""
    if axis is None:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def from_rows(rows: Array, axis: int | None, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`as_rows`."""
    if axis is None:
        return rows.reshape(shape)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


def bounded_codes(rows: Floats, scale: Floats, partners: NDArray[np.int64]) -> NDArray[np.int8]:
    """Nearest codes of rows (..., K) that no pair of can saturate.

    Args:
        rows: the weights.
        scale: one a row, (...).
        partners: of the K weights.
    """
    return np.rint(within_pairs(rows / scale[..., None], partners)).astype(np.int8)


def bounded_scale(
    rows: Floats,
    scale: Floats,
    partners: NDArray[np.int64],
    importance: Floats | None = None,
) -> Floats:
    """A scale of each row, at least the given one, with the smallest squared error in pairs.

    Args:
        rows: the weights, (..., K).
        scale: without the limit, e.g. amax / 127, (...).
        partners: of the K weights.
        importance: mean square of each input, broadcast against rows; None counts all alike.
    """
    codes = np.clip(np.rint(rows / scale[..., None]), -127, 127)
    binding = saturating(codes, partners).any(axis=-1)
    chosen = scale.copy()
    if not binding.any():
        return chosen
    some, first = rows[binding], scale[binding]
    row, place, mate = _binding_pairs(some / first[..., None], partners)
    bound = some[row, place]  # a larger scale binds no others
    weight = None if importance is None else np.broadcast_to(importance, rows.shape)[binding]
    error = np.empty_like(some)
    best = np.full(first.shape, np.inf)
    found = first.copy()
    for factor in _FACTORS:
        tried = first * factor
        np.multiply(some, (1 / tried)[..., None], out=error)
        np.rint(np.clip(error, -127.0, 127.0, out=error), out=error)
        error[row, place] = np.rint(within_pairs(bound / tried[row], mate))
        error *= tried[..., None]
        error -= some
        if weight is None:
            loss = np.einsum("rk,rk->r", error, error)
        else:
            error *= error
            loss = np.einsum("rk,rk->r", error, weight)
        found = np.where(loss < best, tried, found)
        best = np.minimum(loss, best)
    chosen[binding] = found
    return chosen


def _binding_pairs(
    codes: Floats, partners: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row and place of the real codes (rows, K) that the bound changes.

    The third says where in this list each one's partner is.
    """
    row, place = np.nonzero(beyond_pairs(codes, partners))
    size = codes.shape[-1]
    return row, place, np.searchsorted(row * size + place, row * size + partners[place])


def quantize_bounded(
    values: Array, axis: int | None, partners: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes of a weight that no pair of can saturate, and its scale, a number or one a channel.

    A factor per output channel moves into the scale and leaves the codes: the bound, the choice of
    the scale and the rounding only see a row divided by its largest magnitude.

    Args:
        values: finite numbers.
        axis: the output channels; None for one scale.
        partners: of a row's weights, see ``graphs.pairs.pair_partners``.
    """
    rows = as_rows(values, axis)
    scale, codes = np.empty(len(rows), np.float32), np.empty(rows.shape, np.int8)
    step = max(1, _MOST_VALUES // max(1, rows.shape[1]))
    parts = [slice(start, start + step) for start in range(0, len(rows), step)]
    made = in_parallel(lambda part: _quantize_rows(rows[part].astype(np.float64), partners), parts)
    for part, (steps, rounded) in zip(parts, made, strict=True):
        scale[part], codes[part] = steps, rounded
    return from_rows(codes, axis, values.shape), scale if axis is not None else scale.reshape(())


def _quantize_rows(
    rows: Floats, partners: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    largest = symmetric_scale(np.abs(rows).max(axis=-1, initial=0.0))
    scale = bounded_scale(rows, largest.astype(np.float64), partners).astype(np.float32)
    steps = scale.astype(np.float64)  # what the graph stores and divides by
    return scale, bounded_codes(rows, steps, partners)
