"""Pairs of weights whose products a CPU without VNNI adds in 16 bits.

On x86 without VNNI an INT8 layer multiplies unsigned by signed bytes and adds two products at a
time in 16 bits, which saturate (``vpmaddubsw``; signed activations are shifted by 128 to be
unsigned). The sum of a pair stays inside for every activation in [0, 255] if and only if

    w₀ w₁ <= 0   or   |w₀| + |w₁| <= 128            (255 · 128 = 32,640 < 32,767)

The two weights of a pair belong to neighbouring input channels (2i, 2i + 1) of a group, at the
same tap of the kernel. Found by experiment with OpenVINO 2026.4.1, two large weights at a time in
every two places: Conv with and without groups, 1x1, with three channels, ConvTranspose, Gemm and
MatMul. The channel left over of an odd number has no partner, and a depthwise layer no pairs.

Where a group has an odd number of input channels, CPUs differ, and taps are paired, too: with AVX2
those of layers with groups, counted tap by tap and channel by channel; with AVX-512 those of one
channel (a picture in grey, a spectrogram, a depthwise layer of more outputs than inputs), counted
down the kernel's columns. On any CPU no two weights of such a layer may be too large:

    |w| <= 64
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.view import Node

__all__ = [
    "ANY_TWO",
    "PAIR_LIMIT",
    "beyond_pairs",
    "nearer_of_pair",
    "pair_partners",
    "pairing_axis",
    "pairing_axis_of",
    "saturates",
    "saturating",
    "within_pairs",
]

PAIR_LIMIT = 128
"""Largest |w₀| + |w₁| of a pair of codes of one sign."""
ANY_TWO = -1
"""In place of an axis: the weights that are a pair depend on the CPU."""
_INSIDE = PAIR_LIMIT - 1e-6  # so that two halves are never both rounded up

Floats = NDArray[np.float64]


def pairing_axis(
    op_type: str, shape: Sequence[int], *, transposed: bool = False, groups: int = 1
) -> int | None:
    """The axis of a layer's second input whose neighbours are pairs, which its sums run over.

    Args:
        op_type: of the layer.
        shape: of the weight, e.g. (C_out, C_in / groups, kh, kw).
        transposed: Gemm's transB.
        groups: of a Conv.

    Returns:
        None for other operators; :data:`ANY_TWO` where it is a matter of the CPU.
    """
    if op_type == "Conv":
        return ANY_TWO if _pairs_taps(shape, groups) else 1
    if op_type == "ConvTranspose":  # (C_in, C_out / groups, kh, kw)
        return 0
    if op_type == "Gemm":
        return 1 if transposed else 0
    if op_type == "MatMul":  # (..., K, N)
        return max(len(shape) - 2, 0)
    return None


def pairing_axis_of(node: Node, shape: Sequence[int]) -> int | None:
    """:func:`pairing_axis` of a node, whose attributes say the rest."""
    return pairing_axis(
        node.op_type,
        shape,
        transposed=bool(node.integer("transB", 0)),
        groups=node.integer("group", 1),
    )


def _pairs_taps(shape: Sequence[int], groups: int) -> bool:
    """Whether some CPU pairs weights of a Conv that lie at different taps."""
    outputs, inputs, *kernel = shape
    if math.prod(kernel) == 1 or inputs % 2 == 0:
        return False
    depthwise = groups > 1 and outputs == groups
    return not depthwise if inputs == 1 else groups > 1


def pair_partners(shape: Sequence[int], axis: int, rows: int | None) -> NDArray[np.int64]:
    """For each weight of a row, the position of its partner in the row; -1 for none.

    A weight that any other may be paired with is its own partner: no two of them are too large if
    none is with itself.

    A row is what ``np.moveaxis(weight, rows, 0).reshape(shape[rows], -1)`` makes one.

    Args:
        shape: of the weight.
        axis: of the input channels, see :func:`pairing_axis`.
        rows: the output channel axis; None takes the whole weight as one row.
    """
    if axis == ANY_TWO:
        return np.arange(math.prod(shape) // (1 if rows is None else shape[rows]), dtype=np.int64)
    count = shape[axis]
    partner = np.arange(count) ^ 1
    kept = [size for place, size in enumerate(shape) if place != rows]
    where = axis - (rows is not None and rows < axis)
    positions = np.arange(int(np.prod(kept)), dtype=np.int64).reshape(kept)
    found = np.take(positions, np.minimum(partner, count - 1), axis=where)
    alone = np.nonzero(partner >= count)[0]
    lonely: list[Any] = [slice(None)] * len(kept)
    lonely[where] = alone
    found[tuple(lonely)] = -1
    return np.asarray(found.reshape(-1), np.int64)


def saturating(codes: NDArray[Any], partners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which codes of rows (..., K) belong to a pair that can saturate."""
    values = codes.astype(np.int16)
    together = np.abs(values + values[..., partners]) > PAIR_LIMIT  # of two signs never
    return np.asarray(together & (partners >= 0))


def saturates(codes: NDArray[Any], axis: int) -> bool:
    """Whether any pair of INT8 codes can saturate; rows never mix in a pair.

    Args:
        codes: a weight of a layer.
        axis: of the input channels, see :func:`pairing_axis`.
    """
    partners = pair_partners(codes.shape, axis, None)
    return bool(saturating(codes.reshape(1, -1), partners).any())


def within_pairs(values: Floats, partners: NDArray[np.int64]) -> Floats:
    """The nearest real codes (..., K) that no pair of can saturate, in [-127, 127].

    Nearest in the sum of squares: both weights of a pair give up half of what is too much. Rounded
    to integers they still keep the limit.
    """
    clipped = np.clip(values, -127.0, 127.0)
    return np.asarray(clipped - np.copysign(_excess(clipped, partners) / 2, clipped))


def beyond_pairs(values: Floats, partners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which real codes (..., K) :func:`within_pairs` changes for their partner's sake."""
    return np.asarray(_excess(np.clip(values, -127.0, 127.0), partners) > 0)


def nearer_of_pair(values: Floats, others: Floats) -> Floats:
    """What :func:`within_pairs` makes of real codes whose partners are ``others``."""
    clipped = np.clip(values, -127.0, 127.0)
    half = _excess_of(clipped, np.clip(others, -127.0, 127.0)) / 2
    return np.asarray(clipped - np.copysign(half, clipped))


def _excess(clipped: Floats, partners: NDArray[np.int64]) -> Floats:
    """What the pair of each code has too much; 0 where it has not."""
    return np.where(partners >= 0, _excess_of(clipped, clipped[..., partners]), 0.0)


def _excess_of(clipped: Floats, others: Floats) -> Floats:
    # Of two signs, the sum's magnitude is less than either's: no pair of those is too large.
    return np.maximum(np.abs(clipped + others) - _INSIDE, 0.0)
