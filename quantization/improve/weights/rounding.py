"""Weights rounded so that the layer's output changes least, without gradients.

For a layer Y = W X whose INT8 version reads X' instead of X (what INT8 made of it), first the real
weights that come closest are found by ridge regression, then they are rounded column by column,
each column making up for the errors of those before it:

    W* = argmin ‖W X - W* X'‖² + λ ‖W* - W‖²  =  (W X X'ᵀ + λ W) (X' X'ᵀ + λ I)⁻¹
    H  = X' X'ᵀ / n + d I = R Rᵀ                   (R upper triangular)
    ‖(W - Q) H^½‖² = Σ_k ‖Σ_{i ≤ k} (w_i - q_i) R_ik‖²
    for each column k:   q_k = round(w_k + Σ_{i < k} (w_i - q_i) R_ik / R_kk)

The second part is optimal brain quantization with a fixed order, largest H_kk first: GPTQ, which
is Babai's nearest plane, and in this form takes no inverse of H. λ grows with K / n: few samples
cannot say much about many weights, and W itself is the safe answer.

Sources: Frantar et al., GPTQ, 2022 (https://arxiv.org/abs/2210.17323), algorithm 1 and eq. 3;
Frantar & Alistarh, Optimal Brain Compression, 2022 (https://arxiv.org/abs/2208.11580); Nagel et
al., Up or Down? Adaptive Rounding, 2020 (https://arxiv.org/abs/2004.10568), for the objective;
Chen et al., The Geometry of LLM Quantization, 2025 (https://arxiv.org/abs/2507.18553), for the
equivalence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.threads import in_parallel
from graphs.pairs import PAIR_LIMIT, nearer_of_pair
from quantization.arithmetic import symmetric_scale

__all__ = ["largest_scale", "refit", "round_with_feedback", "second_moment"]

Floats = NDArray[np.float64]
_LEVELS = 127
_DAMPING = 0.01  # of the mean diagonal, as in GPTQ
_BLOCK = 128  # columns whose feedback is applied in one product
_MOST_VALUES = 1 << 22  # of the matrices of groups that are rounded at once
_MOMENT_VALUES = 1 << 20  # of columns that are multiplied at once

Best = Callable[[NDArray[np.intp] | slice, Any, int], Floats]


def largest_scale(matrix: NDArray[Any]) -> Floats:
    """Scale amax / 127 of each row: (groups, C_out / groups, K) → (groups, C_out / groups)."""
    return symmetric_scale(np.abs(matrix).max(axis=-1, initial=0.0)).astype(np.float64)


def second_moment(left: NDArray[Any], right: NDArray[Any]) -> Floats:
    """Mean of left_i right_iᵀ over positions: (groups, K, K).

    In float64: float32 cost MobileNetV1 0.8 dB.

    Args:
        left: columns, (n, groups, K).
        right: of the same positions.
    """

    def moment(part: slice) -> Floats:
        a = left[part].astype(np.float64)
        if left is right and a.shape[1] == 1:  # of a matrix and itself half is computed
            return np.asarray((a[:, 0].T @ a[:, 0])[None])
        b = right[part].astype(np.float64)
        return np.asarray(a.transpose(1, 2, 0) @ b.transpose(1, 0, 2))

    # Enough at once: adding up K × K for a few positions takes longer than their product.
    step = max(1, _MOMENT_VALUES // max(1, left[0].size))
    total: Floats | float = 0.0
    for found in in_parallel(moment, [slice(at, at + step) for at in range(0, len(left), step)]):
        total = total + found
    return np.asarray(total / len(left))


def refit(matrix: Floats, cross: Floats, hessian: Floats, *, ridge: float) -> Floats:
    """Real weights whose output on the INT8 input is closest to the float output.

    Args:
        matrix: W, (groups, C_out / groups, K).
        cross: mean of x x'ᵀ, float input against INT8 input, (groups, K, K).
        hessian: mean of x' x'ᵀ, (groups, K, K).
        ridge: λ as a share of the mean of H's diagonal; large values return W.
    """
    size = hessian.shape[-1]
    power = np.trace(hessian, axis1=1, axis2=2) / size
    # A group whose input is always zero tells nothing: any λ > 0 keeps its weights.
    damping = np.where(power > 0, power * ridge, 1.0)[:, None, None] * np.eye(size)
    right = matrix @ (cross + damping)
    return np.asarray(np.linalg.solve(hessian + damping, right.transpose(0, 2, 1))).transpose(
        0, 2, 1
    )


def round_with_feedback(
    matrix: Floats,
    scale: Floats,
    hessian: Floats,
    partners: NDArray[np.int64] | None = None,
) -> NDArray[np.int8]:
    """Codes in [-127, 127] of each group's rows, by error feedback.

    Args:
        matrix: (groups, C_out / groups, K).
        scale: (groups, C_out / groups).
        hessian: mean of x' x'ᵀ, (groups, K, K).
        partners: of the K weights, where no pair of codes may saturate (graphs.pairs).
    """
    paired = partners if partners is not None and (partners >= 0).any() else None
    step = max(1, _MOST_VALUES // hessian[0].size)
    parts = [slice(start, start + step) for start in range(0, len(matrix), step)]
    return np.concatenate(
        [_round_groups(matrix[part], scale[part], hessian[part], paired) for part in parts]
    )


def _round_groups(
    weights: Floats, scale: Floats, hessian: Floats, partners: NDArray[np.int64] | None
) -> NDArray[np.int8]:
    """Some groups at once, column by column: (groups, C_out / groups, K) → codes."""
    size = hessian.shape[-1]
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    factor = _factor(hessian, order, diagonal)
    # In that order and in steps of the scale, a column of the weights a row of memory.
    wanted = np.take_along_axis(weights / scale[..., None], order[:, None], axis=2)
    wanted = np.ascontiguousarray(wanted.transpose(0, 2, 1))
    missing, carried = np.zeros_like(wanted), np.zeros_like(wanted)
    codes = np.zeros(wanted.shape, np.int8)
    limits = None if partners is None else PairLimits(partners, order)

    def best(groups: NDArray[np.intp] | slice, column: Any, done: int) -> Floats:
        """What makes up for the errors of the columns that are done: (groups, C_out)."""
        block = slice(done - done % _BLOCK, done)  # the blocks before it are carried
        ahead = factor[groups, column, None, block] @ missing[groups, block]
        owed = carried[groups, column] + ahead[:, 0]
        return np.asarray(wanted[groups, column] + owed)

    for k in range(size):
        goal = best(slice(None), k, k)
        if limits is not None:
            goal = limits.keep(k, goal, best, codes)
        codes[:, k] = rounded = np.clip(np.rint(goal), -_LEVELS, _LEVELS)
        missing[:, k] = wanted[:, k] - rounded
        if (done := k + 1) % _BLOCK == 0:
            block = slice(done - _BLOCK, done)
            carried[:, done:] += factor[:, done:, block] @ missing[:, block]
    sorted_back = np.empty(weights.shape, np.int8)
    np.put_along_axis(sorted_back, order[:, None], codes.transpose(0, 2, 1), axis=2)
    return sorted_back


def _factor(hessian: Floats, order: NDArray[np.int64], diagonal: Floats) -> Floats:
    """R_ik / R_kk at [k, i] of each group, columns in the order of rounding; H = R Rᵀ."""
    back = order[:, ::-1]
    damped = np.take_along_axis(hessian, back[:, :, None], axis=1)
    damped = np.take_along_axis(damped, back[:, None], axis=2)
    mean = diagonal.mean(axis=1)
    # What makes H invertible; a layer that saw only zeros gets the identity.
    damping = np.where(mean > 0, _DAMPING * mean, 1.0)
    every = np.arange(hessian.shape[-1])
    damped[:, every, every] += damping[:, None]
    # The lower factor of H with its columns reversed is the upper one of H, reversed.
    lower = np.linalg.cholesky(damped)[:, ::-1, ::-1].transpose(0, 2, 1)
    return np.asarray(lower / np.diagonal(lower, axis1=1, axis2=2)[..., None], order="C")


class PairLimits:
    """What the partner of a column leaves to it, while columns are rounded one after another."""

    def __init__(self, partners: NDArray[np.int64], order: NDArray[np.int64]) -> None:
        place = np.argsort(order, axis=1)  # of each weight in the order of rounding
        partner = partners[order]
        found = np.take_along_axis(place, np.maximum(partner, 0), axis=1)
        self._partner = np.where(partner < 0, -1, found)

    def keep(self, k: int, goal: Floats, best: Best, codes: NDArray[np.int8]) -> Floats:
        """The nearest real codes of column ``k`` that its partner allows.

        A partner that is rounded sets the limit; one that is not yet gives up half itself. A column
        that is its own partner has half of the limit.

        Args:
            k: the column, in the order of rounding.
            goal: its best real codes, (groups, C_out / groups).
            best: the same of other columns of some groups, if they were rounded now.
            codes: of the columns before, (groups, K, C_out / groups).
        """
        places, kept = self._partner[:, k], goal.copy()
        own, later, earlier = places == k, places > k, (places >= 0) & (places < k)
        if own.any():
            kept[own] = np.clip(goal[own], -PAIR_LIMIT / 2, PAIR_LIMIT / 2)
        if later.any():
            if len(places) == 1:  # of one group no factors are copied
                other = best(slice(None), places[0], k)
            else:
                other = best(np.flatnonzero(later), places[later], k)
            kept[later] = nearer_of_pair(goal[later], other)
        if earlier.any():
            taken = codes[earlier, places[earlier]].astype(np.float64)
            high = np.where(taken > 0, PAIR_LIMIT - taken, _LEVELS)
            low = np.where(taken < 0, -PAIR_LIMIT - taken, -_LEVELS)
            kept[earlier] = np.clip(goal[earlier], low, high)
        return kept
