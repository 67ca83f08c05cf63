"""Pairs of weights whose products a CPU without VNNI adds in 16 bits.

On x86 without VNNI an INT8 layer multiplies unsigned by signed bytes and adds two products at a
time in 16 bits, which saturate (``vpmaddubsw``; signed activations are shifted by 128 to be
unsigned). The sum of a pair stays inside for every activation in [0, 255] if and only if

    w₀ w₁ <= 0   or   |w₀| + |w₁| <= 128            (255 · 128 = 32,640 < 32,767)

The two weights of a pair belong to neighbouring input channels (2i, 2i + 1) of a group, at the
same tap of the kernel. Found by experiment with OpenVINO 2026.4.1 on AVX2, every pair of layers
of all kinds: Conv with and without groups, 1x1, with three channels, ConvTranspose, Gemm and
MatMul. The channel left over of an odd number has no partner, and a depthwise layer no pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PAIR_LIMIT",
    "beyond_pairs",
    "pair_partners",
    "reduction_axis",
    "saturates",
    "saturating",
    "within_pairs",
]

PAIR_LIMIT = 128
"""Largest |w₀| + |w₁| of a pair of codes of one sign."""
_INSIDE = PAIR_LIMIT - 1e-6  # so that two halves are never both rounded up

Floats = NDArray[np.float64]


def reduction_axis(op_type: str, rank: int, *, transposed: bool = False) -> int | None:
    """The axis of a layer's second input that its sums run over; None for other operators.

    Args:
        op_type: of the layer.
        rank: of the weight, e.g. 4 for (C_out, C_in / groups, kh, kw).
        transposed: Gemm's transB.
    """
    if op_type == "Conv":
        return 1
    if op_type == "ConvTranspose":  # (C_in, C_out / groups, kh, kw)
        return 0
    if op_type == "Gemm":
        return 1 if transposed else 0
    if op_type == "MatMul":  # (..., K, N)
        return max(rank - 2, 0)
    return None


def pair_partners(shape: Sequence[int], axis: int, rows: int | None) -> NDArray[np.int64]:
    """For each weight of a row, the position of its partner in the row; -1 for none.

    A row is what ``np.moveaxis(weight, rows, 0).reshape(shape[rows], -1)`` makes one.

    Args:
        shape: of the weight.
        axis: of the input channels, see :func:`reduction_axis`.
        rows: the output channel axis; None takes the whole weight as one row.
    """
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
    values = codes.astype(np.int32)
    other = values[..., partners]
    together = (np.abs(values) + np.abs(other) > PAIR_LIMIT) & (values * other > 0)
    return np.asarray(together & (partners >= 0))


def saturates(codes: NDArray[Any], axis: int) -> bool:
    """Whether any pair of INT8 codes can saturate; rows never mix in a pair.

    Args:
        codes: a weight of a layer.
        axis: of the input channels, see :func:`reduction_axis`.
    """
    partners = pair_partners(codes.shape, axis, None)
    return bool(saturating(codes.reshape(1, -1), partners).any())


def within_pairs(values: Floats, partners: NDArray[np.int64]) -> Floats:
    """The nearest real codes (..., K) that no pair of can saturate, in [-127, 127].

    Nearest in the sum of squares: both weights of a pair give up half of what is too much. Rounded
    to integers they still keep the limit.
    """
    clipped = np.clip(values, -127.0, 127.0)
    return np.asarray(clipped - np.sign(clipped) * _excess(clipped, partners) / 2)


def beyond_pairs(values: Floats, partners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which real codes (..., K) :func:`within_pairs` changes for their partner's sake."""
    return np.asarray(_excess(np.clip(values, -127.0, 127.0), partners) > 0)


def _excess(clipped: Floats, partners: NDArray[np.int64]) -> Floats:
    """What the pair of each code has too much; 0 where it has not."""
    other = clipped[..., partners]
    excess = np.abs(clipped) + np.abs(other) - _INSIDE
    binds = (excess > 0) & (clipped * other > 0) & (partners >= 0)
    return np.where(binds, excess, 0.0)
